package integration

import (
	"archive/tar"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// systems are those that there are node files for.
var systems = []string{"debian", "raspios", "init-overlay", "alpine"}

// nodeFiles are the regular files that node-files has for a kind of system, by path.
func nodeFiles(t *testing.T, system string, args ...string) files {
	t.Helper()
	all := files{}
	archive := tar.NewReader(strings.NewReader(cli(t, append([]string{"node-files", "--for", system, "--tar"}, args...)...)))
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			all[h.Name] = string(b)
		}
	}
}

// TestNodeFileScripts has each script read by shellcheck, and by the shells that nodes have.
func TestNodeFileScripts(t *testing.T) {
	require(t, "shellcheck", "busybox", "dash")
	scripts := files{"boot.sh": bootScript, "init-overlay.sh": initOverlay}
	for _, system := range systems {
		for path, text := range nodeFiles(t, system, "--home", "192.0.2.1:/home") {
			if strings.HasPrefix(text, "#!") {
				scripts[path] = text
			}
		}
	}
	if len(scripts) < 6 {
		t.Errorf("there are only %q", slices.Sorted(maps.Keys(scripts)))
	}
	dir := t.TempDir()
	for path, text := range scripts {
		name := filepath.Join(dir, filepath.Base(path))
		write(t, name, text)
		for _, command := range []string{"shellcheck --shell=sh --severity=style", "busybox sh -n", "dash -n"} {
			words := append(strings.Fields(command), name)
			if r := finish(t, exec.Command(words[0], words[1:]...)); r.status != 0 {
				t.Errorf("%s of /%s:\n%s%s", command, path, r.stdout, r.stderr)
			}
		}
	}
}

// TestNodeFileUnits has systemd read the units, in a root that they are installed in.
func TestNodeFileUnits(t *testing.T) {
	golden := openNodeSide(t)
	args := []string{golden.Tree("v1"), "systemd-analyze", "verify"}
	for path := range nodeFiles(t, "debian", "--home", lab.ServerAddress+":/home") {
		switch filepath.Ext(path) {
		case ".mount", ".automount", ".service":
			args = append(args, "/"+path)
		}
	}
	if len(args) != 3+4 {
		t.Errorf("there are the units %q; want four", args[3:])
	}
	r := finish(t, exec.Command("chroot", args...))
	for line := range strings.Lines(r.stdout + r.stderr) {
		if !strings.Contains(line, "kernel does not support IPv6") { // of rpcbind's
			t.Errorf("systemd-analyze says %s", line)
		}
	}
	if r.status != 0 {
		t.Errorf("systemd-analyze ends with %d", r.status)
	}
}

// TestNodeFilesInto installs into a tree: it is shown what changes, nothing changes without being wanted, and the
// second time there is nothing to do.
func TestNodeFilesInto(t *testing.T) {
	require(t)
	tree := t.TempDir()
	write(t, filepath.Join(tree, "etc/systemd/system/home.mount"), "[Mount]\nWhat=old:/home\n")
	write(t, filepath.Join(tree, "etc/hostname"), "golden\n")
	args := []string{"node-files", "--for", "debian", "--home", "192.0.2.1:/home", "--into", tree}
	listed := func() string { return finish(t, exec.Command("find", tree, "-printf", "%p %m %u %l %T@\n")).stdout }
	before := listed()

	for _, more := range [][]string{{"--dry-run"}, nil} {
		r := finish(t, exec.Command(rootnfsd, append(args, more...)...))
		for _, want := range []string{"-What=old:/home\n", "+What=192.0.2.1:/home\n", "+++ b/etc/initramfs-tools/hooks/rootnfsd-overlay\n", "+-> ../home-activate.service\n"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("%q shows\n%s; want %q in it", more, r.stdout, want)
			}
		}
		if refused := strings.Contains(r.stderr, "--yes"); refused != (more == nil) || refused != (r.status == 1) {
			t.Errorf("%q: exit status %d, %s", more, r.status, r.stderr)
		}
		if after := listed(); after != before {
			t.Errorf("%q changes the tree:\n%s\nwas\n%s", more, after, before)
		}
	}

	if out := cli(t, append(args, "--yes")...); !strings.Contains(out, "update-initramfs -u") {
		t.Errorf("it does not say that the initramfs has to be made:\n%s", out)
	}
	for path, text := range nodeFiles(t, "debian", "--home", "192.0.2.1:/home") {
		if got, err := os.ReadFile(filepath.Join(tree, path)); string(got) != text || err != nil {
			t.Errorf("%s is %q, %v", path, got, err)
		}
	}
	after := listed()
	if !strings.Contains(after, "/multi-user.target.wants/home-activate.service 777 root ../home-activate.service ") {
		t.Errorf("the home is not enabled:\n%s", after)
	}
	if out := cli(t, append(args, "--yes")...); !strings.HasPrefix(out, "nothing to do") || listed() != after {
		t.Errorf("the second time it says %q and leaves\n%s", out, listed())
	}
	if out := cli(t, "node-files", "--for", "debian", "--into", tree, "--yes"); !strings.HasPrefix(out, "nothing to do") {
		t.Errorf("without a home it says %q; want that what is there stays", out)
	}
}

// TestNodeFilesOfEach prints and installs the files of each kind of system, as an administrator does whose umask is strict.
func TestNodeFilesOfEach(t *testing.T) {
	require(t)
	for _, system := range systems {
		t.Run(system, func(t *testing.T) {
			tree := t.TempDir()
			args := []string{"node-files", "--for", system, "--home", "192.0.2.1:/home"}
			installed := func() string {
				t.Helper()
				r := finish(t, exec.Command("sh", slices.Concat([]string{"-euc", `umask 077; exec "$0" "$@"`, rootnfsd}, args, []string{"--into", tree, "--yes"})...))
				if r.status != 0 {
					t.Fatal(r.stderr)
				}
				return r.stdout
			}
			installed()
			if again := installed(); !strings.HasPrefix(again, "nothing to do") {
				t.Errorf("the second time it says %q", again)
			}
			if dirs := finish(t, exec.Command("find", tree, "-mindepth", "1", "-type", "d", "-not", "-perm", "755")).stdout; dirs != "" {
				t.Errorf("nodes cannot go into %s", dirs)
			}
			printed := "\n" + cli(t, args...)
			for path, text := range nodeFiles(t, system, "--home", "192.0.2.1:/home") {
				info, err := os.Stat(filepath.Join(tree, path))
				if err != nil {
					t.Error(err)
					continue
				}
				if got := readFile(t, filepath.Join(tree, path)); got != text || info.Mode().Perm()&0o444 != 0o444 {
					t.Errorf("%s is %v, and %q; want %q", path, info.Mode(), got, text)
				}
				if want := fmt.Sprintf("\n# /%s (mode %04o)\n%s", path, info.Mode().Perm(), text); !strings.Contains(printed, want) {
					t.Errorf("it does not print /%s:%s", path, printed)
				}
			}
		})
	}
}

// TestNodeFilesHostile installs into trees that try to have files made outside.
func TestNodeFilesHostile(t *testing.T) {
	require(t)
	outside := t.TempDir()
	for name, c := range map[string]struct {
		links map[string]string
		at    string // where the unit is then, nothing if it is refused
	}{
		"an absolute link":                    {map[string]string{"etc": outside}, ""},
		"a link upwards":                      {map[string]string{"etc": "../../../../../../../../.." + outside}, ""},
		"a link at a file":                    {map[string]string{"etc/systemd/system/home.mount": outside + "/home.mount"}, "etc/systemd/system/home.mount"},
		"a link that is absolute in the tree": {map[string]string{"etc/systemd": "/real"}, "real/system/home.mount"},
	} {
		t.Run(name, func(t *testing.T) {
			tree := t.TempDir()
			mkdir(t, filepath.Join(tree, "real"))
			for path, target := range c.links {
				mkdir(t, filepath.Dir(filepath.Join(tree, path)))
				if err := os.Symlink(target, filepath.Join(tree, path)); err != nil {
					t.Fatal(err)
				}
			}
			r := finish(t, exec.Command(rootnfsd, "node-files", "--for", "raspios", "--home", "192.0.2.1:/home", "--into", tree, "--yes"))
			if (r.status == 0) != (c.at != "") {
				t.Errorf("exit status %d\n%s%s", r.status, r.stdout, r.stderr)
			}
			if c.at != "" {
				if info, err := os.Lstat(filepath.Join(tree, c.at)); err != nil || !info.Mode().IsRegular() {
					t.Errorf("%s is %v, %v; want a file", c.at, info, err)
				}
			}
			if left, err := os.ReadDir(outside); len(left) > 0 || err != nil {
				t.Errorf("outside there is %v, %v; want nothing", left, err)
			}
		})
	}
}

// TestNodeFilesRefused has calls that make no sense.
func TestNodeFilesRefused(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args, want string
	}{
		{"", "debian, raspios, init-overlay, alpine"},
		{"--for rasbian", "did you mean debian or raspios"},
		{"--for x", "there are debian, raspios"},
		{"--for debian --into " + dir + " --tar", "want one of them"},
		{"--for debian --dry-run", "are for --into"},
		{"--for debian --yes", "are for --into"},
		{"--for debian --into=", "wants a directory"},
		{"--for debian --into " + dir + "/missing --yes", "no such file or directory"},
		{"--for debian --home server", "SERVER:/PATH"},
		{"--for debian x", "x"},
	} {
		r := finish(t, exec.Command(rootnfsd, append([]string{"node-files"}, strings.Fields(c.args)...)...))
		if r.status != 1 || !strings.Contains(r.stderr, c.want) {
			t.Errorf("node-files %s: exit status %d, %s; want 1, and %q", c.args, r.status, r.stderr, c.want)
		}
	}
}

// TestImportNodeFiles imports and seals trees with node files: they are in the version, and it says so.
func TestImportNodeFiles(t *testing.T) {
	store := newStore(t, map[string]files{"v1": bootableTree(files{"etc/systemd/.keep": ""})})
	at := "--export=" + store
	for _, args := range [][]string{
		{"import", store + "/v1", "v2", "--node-files", "debian", "--home", "192.0.2.1:/home", at},
		{"seal", "v1", "--node-files", "debian", "--home", "192.0.2.1:/home", "--fix", at},
	} {
		out := cli(t, args...)
		if !strings.Contains(out, "fixed /etc/systemd/system/home.mount: made [node-files]") || !strings.Contains(out, "update-initramfs") {
			t.Errorf("%s prints\n%s", args[0], out)
		}
	}
	for _, v := range []string{"v1", "v2"} {
		for path, text := range nodeFiles(t, "debian", "--home", "192.0.2.1:/home") {
			if got := cli(t, "cat", v+":/"+path, at); got != text {
				t.Errorf("in %s, %s is %q", v, path, got)
			}
		}
		if record := cli(t, "cat", v+":/etc/rootnfsd/fixes.json", at); strings.Count(record, `"rule": "node-files"`) < 10 {
			t.Errorf("%s has the record\n%s", v, record)
		}
		if r := finish(t, exec.Command(rootnfsd, "lint", v, at)); r.status != 0 {
			t.Errorf("lint %s: exit status %d\n%s", v, r.status, r.stdout)
		}
	}
	if out, _ := os.ReadDir(filepath.Join(store, "v1/etc/systemd")); len(out) != 1 {
		t.Errorf("the tree itself was changed: %v", out)
	}
	for args, want := range map[string]string{"--home 192.0.2.1:/home": "--node-files wants a system", "--node-files alpin": "did you mean alpine"} {
		r := finish(t, exec.Command(rootnfsd, append([]string{"seal", "v1", at}, strings.Fields(args)...)...))
		if r.status != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("seal %s: exit status %d, %s; want 1, and %q", args, r.status, r.stderr, want)
		}
	}
}

// TestNodeFilesLint looks at a Debian root with the node files: nothing keeps nodes from booting it.
func TestNodeFilesLint(t *testing.T) {
	golden := openNodeSide(t)
	found := cliJSON[lintOutput](t, "lint", "v1", "--export", golden.Store)
	if found.Errors != 0 {
		t.Errorf("%+v", found)
	}
	for _, f := range found.Findings {
		if f.Rule == "journal-persistent" || f.Rule == "overlayroot-conf" {
			t.Errorf("%+v; want that the node files put that right", f)
		}
	}
}

// TestGoodScript has a node tell its server that it is well, by each program that it may have for that: a server
// that has no door is no fault, one that does not take it is.
func TestGoodScript(t *testing.T) {
	require(t, "unshare", "busybox", "dash", "bash", "curl", "nfs-ls")
	net := newNet(t)
	dir := t.TempDir()
	script, words := filepath.Join(dir, "good"), filepath.Join(dir, "cmdline")
	write(t, script, nodeFiles(t, "alpine")["usr/local/sbin/rootnfsd-good"])
	write(t, words, "quiet nfsroot="+lab.ServerAddress+":/images,v3\n")
	say := func(shell string, programs ...string) result {
		bin := t.TempDir()
		for _, p := range programs {
			name, _, _ := strings.Cut(p, ":") // wget:busybox is busybox, called wget
			path, err := exec.LookPath(p[strings.Index(p, ":")+1:])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
				t.Fatal(err)
			}
		}
		return finish(t, net.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /proc/cmdline && shift && exec env -i PATH="$1" $2 "$3"`, "sh", words, bin, shell, script))
	}
	for _, shell := range []string{"/bin/dash", "/bin/busybox sh"} {
		if r := say(shell, "timeout"); r.status != 1 || !strings.Contains(r.stderr, "bash, curl and wget") {
			t.Errorf("%s, nothing to ask by: exit status %d, %s%s", shell, r.status, r.stdout, r.stderr)
		}
	}
	all := [][]string{{"bash", "timeout"}, {"bash"}, {"curl"}, {"wget:busybox", "timeout"}, {"wget:busybox"}}
	each := func(status int, want string) {
		t.Helper()
		for _, programs := range all {
			for _, shell := range []string{"/bin/dash", "/bin/busybox sh"} {
				r := say(shell, programs...)
				if r.status != status || !strings.Contains(r.stdout+r.stderr, want) || want == "" && r.stdout+r.stderr != "" {
					t.Errorf("%s with %q: exit status %d, %s%s; want %d, %q", shell, programs, r.status, r.stdout, r.stderr, status, want)
				}
			}
		}
	}
	each(0, "")
	store := newStore(t, map[string]files{"v1": smallTree})
	cli(t, "promote", "v1", "--export", store)
	serve(t, net, "--export", store, "--allow", lab.ServerAddress+"/24", "--admin", lab.ServerAddress+":2050")
	each(1, "it answers 404")
	if r := finish(t, net.Command("nfs-ls", "nfs://"+lab.ServerAddress+"/images")); r.status != 0 {
		t.Fatal(r.stderr)
	}
	each(0, "told "+lab.ServerAddress)
}
