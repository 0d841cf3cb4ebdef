package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// specialTree makes of the tree of a version one that takes root to keep.
func specialTree(t *testing.T, store, version string) {
	t.Helper()
	at := func(path string) string { return filepath.Join(store, version, path) }
	for _, err := range []error{
		os.MkdirAll(at("dev"), 0o755),
		syscall.Mknod(at("dev/null"), syscall.S_IFCHR|0o666, 1<<8|3),
		os.Chmod(at("dev/null"), 0o666), // whatever the umask
		os.Chown(at("etc/hostname"), 7, 8),
		syscall.Chmod(at("usr/bin/program"), 0o4755),
		os.Link(at("usr/bin/program"), at("usr/bin/other-name")),
		os.Symlink("../etc/hostname", at("usr/link")),
		os.WriteFile(at("etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nlp:x:7:7::/:/bin/sh\n"), 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestLookInside looks into a version by ls and cat, and copies out of it.
func TestLookInside(t *testing.T) {
	require(t)
	store := newStore(t, map[string]files{"v1": smallTree})
	specialTree(t, store, "v1")
	at := "--export=" + store
	cli(t, "seal", at)

	if got := cli(t, "ls", "v1:/", at); got != "dev\netc\nusr\n" {
		t.Errorf("ls: %q", got)
	}
	if got := cli(t, "ls", "-l", "v1:/etc/hostname", "v1:/usr/link", at); !strings.HasPrefix(got, "-rw-r--r-- 1 lp 8 7 ") || !strings.HasSuffix(got, "/usr/link -> ../etc/hostname\n") {
		t.Errorf("ls -l: %q", got)
	}
	if got := cli(t, "ls", "-n", "v1:/dev", at); !strings.HasPrefix(got, "crw-rw-rw- 1 0 0 1, 3 ") {
		t.Errorf("ls -n: %q", got)
	}
	type listed struct{ Version, Path, Type, Mode, Device string }
	if got := cliJSON[[]listed](t, "ls", "v1:/dev", at); !slices.Equal(got, []listed{{"v1", "/dev/null", "character device", "0666", "1:3"}}) {
		t.Errorf("ls --json: %+v", got)
	}
	if got := cli(t, "cat", "v1:/usr/link", "v1:etc/os-release", at); got != "golden\nNAME=small\n" {
		t.Errorf("cat: %q", got)
	}

	dir := t.TempDir()
	to := filepath.Join(dir, "name")
	cli(t, "cp", "v1:/usr/link", to, at)
	if b, err := os.ReadFile(to); err != nil || string(b) != "golden\n" {
		t.Errorf("cp: %q, %v", b, err)
	}
	cli(t, "cp", "-r", "v1:/usr", "v1:/dev", dir, at)
	var program syscall.Stat_t
	if err := syscall.Stat(dir+"/usr/bin/program", &program); err != nil || program.Mode&0o7777 != 0o755 || program.Nlink != 2 {
		t.Errorf("cp -r: mode %o, %d links, %v", program.Mode, program.Nlink, err)
	}
	if text, err := os.Readlink(dir + "/usr/link"); err != nil || text != "../etc/hostname" {
		t.Errorf("cp -r: a symlink to %q, %v", text, err)
	}
	if left, _ := filepath.Glob(dir + "/dev/*"); left != nil {
		t.Errorf("cp -r copied %q", left)
	}
	cli(t, "cp", "-a", "v1:/usr", dir+"/kept", at)
	if err := syscall.Stat(dir+"/kept/bin/program", &program); err != nil || program.Mode&0o7777 != 0o4755 {
		t.Errorf("cp -a: mode %o, %v", program.Mode, err)
	}

	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"ls", "v11:/etc"}, []string{"v11", "did you mean", "v1"}},
		{[]string{"ls", "/etc"}, []string{"/etc", "VERSION:PATH"}},
		{[]string{"ls", "v1:/etc/none"}, []string{"/etc/none"}},
		{[]string{"cat", "v1:/etc"}, []string{"directory", "rootnfsd ls"}},
		{[]string{"cat", "v1:/dev/null"}, []string{"character device"}},
		{[]string{"cp", "v1:/etc", dir}, []string{"-r"}},
		{[]string{"cp", "-r", "v1:/usr", dir}, []string{dir + "/usr", "remove it"}},
		{[]string{"cp", "-r", "v1:/usr", to}, []string{to, "no directory"}},
		{[]string{"cp", "v1:/etc/hostname", "v1:/usr/link", to}, []string{to, "no directory"}},
		{[]string{"cp", "v1:/etc/hostname", "/dev/null"}, []string{"/dev/null", "rootnfsd cat"}},
		{[]string{"cp", "v1:/etc/hostname"}, []string{"where"}},
	} {
		expectFailure(t, append(c.args, at), c.want...)
	}
	if left, _ := filepath.Glob(dir + "/.tmp*"); left != nil {
		t.Errorf("cp leaves %q", left)
	}
}

// TestCheckout makes directories of a version, as root and as somebody.
func TestCheckout(t *testing.T) {
	require(t)
	store := newStore(t, map[string]files{"v1": smallTree})
	specialTree(t, store, "v1")
	at := "--export=" + store
	cli(t, "seal", at)
	dir := t.TempDir()
	cli(t, "checkout", "v1", dir+"/out", at)
	cli(t, "seal", "again", "--from", dir+"/out", at)
	versions := cliJSON[[]versionRow](t, "versions", at)
	if len(versions) != 2 || versions[0].Digest != versions[1].Digest {
		t.Errorf("%+v; want the digest of v1 twice", versions)
	}
	expectFailure(t, []string{"checkout", "v1", dir + "/out", at}, dir+"/out", "not empty")
	expectFailure(t, []string{"checkout", "v1", rootnfsd, at}, "no directory")
	expectFailure(t, []string{"checkout", "v1", dir + "/none/out", at}, dir+"/none", "make the directory")
	expectFailure(t, []string{"checkout", "v11", dir + "/other", at}, "v11", "did you mean", "v1")

	// Somebody who owns the store can keep all but what takes root.
	const nobody = 65534
	for _, err := range []error{exec.Command("chown", "-R", "65534:65534", store+"/.rootnfsd").Run(), os.Chown(dir, nobody, nobody)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path := store; path != os.TempDir(); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) result {
		cmd := exec.Command(rootnfsd, append(args, at)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return finish(t, cmd)
	}
	args := []string{"checkout", "v1", dir + "/mine"}
	expectResult(t, args, run(args...), "root", "11 owners, 1 device", "--no-owner")
	if r := run(append(args, "--no-owner")...); r.status != 0 || !strings.Contains(r.stdout, "left out: 11 owners, 1 device") {
		t.Errorf("checkout --no-owner: %d, %s%s", r.status, r.stdout, r.stderr)
	}
	var st syscall.Stat_t
	if err := syscall.Stat(dir+"/mine/usr/bin/program", &st); err != nil || st.Mode&0o7777 != 0o755 || st.Uid != nobody || st.Nlink != 2 {
		t.Errorf("the program is %+v, %v; want nobody's, without a setuid bit", st, err)
	}
	if left, _ := filepath.Glob(dir + "/.tmp*"); left != nil {
		t.Errorf("checkout leaves %q", left)
	}
}

// TestCheckoutStopped stops a checkout in the middle.
func TestCheckoutStopped(t *testing.T) {
	store := newStore(t, map[string]files{"v1": treeOf(3000)})
	at := "--export=" + store
	cli(t, "seal", at)
	dir := t.TempDir()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command(rootnfsd, "checkout", "v1", dir+"/out", "--no-owner", at)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for begun := false; !begun; { // it ends at the latest when all is done
			left, _ := filepath.Glob(dir + "/.tmp*/*/*")
			_, err := os.Stat(dir + "/out")
			begun = left != nil || err == nil
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		stopped := cmd.Wait() != nil
		entries, err := os.ReadDir(dir)
		if err != nil || stopped != (len(entries) == 0) {
			t.Errorf("stopped is %v, and there are %v, %v", stopped, entries, err)
		}
		if err := os.RemoveAll(dir + "/out"); err != nil {
			t.Fatal(err)
		}
	}
	// What is killed leaves something; the next one to the same place takes it away.
	cmd := exec.Command(rootnfsd, "checkout", "v1", dir+"/out", "--no-owner", at)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for begun := false; !begun; {
		left, _ := filepath.Glob(dir + "/.tmp*/*/*")
		_, err := os.Stat(dir + "/out")
		begun = left != nil || err == nil
	}
	cmd.Process.Kill()
	cmd.Wait()
	cli(t, "checkout", "v1", dir+"/out", "--no-owner", at)
	if left, _ := filepath.Glob(dir + "/.tmp*"); left != nil {
		t.Errorf("after a kill and another checkout there is %q", left)
	}
}
