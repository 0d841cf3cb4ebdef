package integration

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// diffOutput is what diff --json prints.
type diffOutput struct {
	Changes []struct {
		Path, Change string
		What         []string
	}
	Summary struct {
		Added, Removed, Changed uint64
		TimesOnly               uint64 `json:"times_only"`
		Packages                []struct {
			Package, Before, After  string
			Added, Removed, Changed uint64
		}
	}
}

// debianTree is a tree that dpkg thinks it has made.
func debianTree(bash string, more files) files {
	tree := files{
		"var/lib/dpkg/status":         "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: " + bash + "\n",
		"var/lib/dpkg/info/bash.list": "/.\n/usr\n/usr/bin\n/usr/bin/bash\n/usr/share/doc/bash\n",
		"usr/bin/bash":                bash,
		"etc/hostname":                "golden\n",
		"etc/motd":                    "welcome\n",
	}
	for path, content := range more {
		tree[path] = content
	}
	return tree
}

// TestDiff compares two versions by the program.
func TestDiff(t *testing.T) {
	store := newStore(t, map[string]files{
		"v1": debianTree("5.2.15-2", files{"usr/share/old": "old"}),
		"v2": debianTree("5.2.15-3", files{"opt/new": "new"}),
	})
	at := "--export=" + store
	// The trees were made one after the other; let one file alone show that.
	long := time.Unix(1_600_000_000, 0)
	err := filepath.WalkDir(store, func(path string, d os.DirEntry, err error) error {
		if strings.HasSuffix(path, "v2/etc/motd") {
			return os.Chtimes(path, long, long.Add(time.Hour))
		}
		return errors.Join(err, os.Chtimes(path, long, long))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(store, "v2/etc/hostname"), 0o600); err != nil {
		t.Fatal(err)
	}
	cli(t, "seal", at)

	got := cliJSON[diffOutput](t, "diff", "v1", "v2", at)
	var lines []string
	for _, c := range got.Changes {
		lines = append(lines, strings.TrimSpace(c.Change+" "+c.Path+" "+strings.Join(c.What, ",")))
	}
	want := []string{
		"changed /etc/hostname mode", "added /opt", "added /opt/new", "changed /usr/bin/bash content",
		"removed /usr/share", "removed /usr/share/old", "changed /var/lib/dpkg/status content",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("changes %q; want %q", lines, want)
	}
	sum := got.Summary
	if sum.Added != 2 || sum.Removed != 2 || sum.Changed != 3 || sum.TimesOnly != 1 || len(sum.Packages) != 2 {
		t.Fatalf("summary %+v", sum)
	}
	if p := sum.Packages[0]; p.Package != "bash" || p.Before != "5.2.15-2" || p.After != "5.2.15-3" || p.Changed != 1 {
		t.Errorf("package %+v", p)
	}
	if p := sum.Packages[1]; p.Package != "" || p.Added != 1 || p.Removed != 1 || p.Changed != 2 {
		t.Errorf("what is of no package: %+v", p)
	}
	if got := cliJSON[diffOutput](t, "diff", "v1", "v2", at, "--times"); len(got.Changes) != len(want)+1 {
		t.Errorf("with --times there are %d changes; want %d", len(got.Changes), len(want)+1)
	}

	text := cli(t, "diff", "v1", "v2", at)
	for _, want := range []string{"~ /etc/hostname  mode 0644 -> 0600\n", "+ /opt/new\n", "- /usr/share/\n", "~ bash 5.2.15-2 -> 5.2.15-3", "2 added, 2 removed, 3 changed; 1 more in the time"} {
		if !strings.Contains(text, want) {
			t.Errorf("diff prints\n%s; want %q in it", text, want)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("diff colours what goes to a pipe")
	}
	if text := cli(t, "diff", "v1", "v2", at, "--color=always"); !strings.Contains(text, "\x1b[32m+ /opt/new\x1b[0m") {
		t.Errorf("diff --color=always prints\n%s", text)
	}
	if text := cli(t, "diff", "v1", "v2", at, "--summary"); strings.Contains(text, "/opt/new") || !strings.Contains(text, "~ bash") {
		t.Errorf("diff --summary prints\n%s", text)
	}
	for _, c := range []struct {
		args   []string
		status int
	}{
		{[]string{"v1", "v2"}, 0},
		{[]string{"v1", "v1", "--exit-code"}, 0},
		{[]string{"v1", "v2", "--exit-code"}, 1},
		{[]string{"v1", "v22", "--exit-code"}, 2},
	} {
		if r := finish(t, exec.Command(rootnfsd, append([]string{"diff", at}, c.args...)...)); r.status != c.status {
			t.Errorf("diff %q: exit status %d; want %d", c.args, r.status, c.status)
		} else if c.status == 1 && r.stderr != "" {
			t.Errorf("diff %q: %q on stderr; want nothing", c.args, r.stderr)
		}
	}
	expectFailure(t, []string{"diff", "v1", "v22", at}, "v22", "did you mean", "v2")
	expectFailure(t, []string{"diff", "v1", at}, "two versions")
	expectFailure(t, []string{"diff", "v1", "v2", at, "--color=blue"}, "blue", "never")
}

// TestDiffBrokenPackages compares with trees in which dpkg's files are not what
// they should be: all but the packages is told, and that they are not.
func TestDiffBrokenPackages(t *testing.T) {
	long := strings.Repeat("x", 2<<20)
	broken := map[string]files{
		"file":   {"var/lib/dpkg": "x", "etc/motd": "new"},
		"dir":    {"var/lib/dpkg/status/x": "", "etc/motd": "new"},
		"line":   {"var/lib/dpkg/status": "Package: x\nLong: " + long, "etc/motd": "new"},
		"list":   debianTree("5.2.15-2", files{"var/lib/dpkg/info/bash.list": "/" + long, "etc/motd": "new"}),
		"nolist": {"var/lib/dpkg/info": "x", "var/lib/dpkg/status": debianTree("5", nil)["var/lib/dpkg/status"], "etc/motd": "new"},
	}
	trees := map[string]files{"v1": debianTree("5.2.15-2", nil)}
	for name, tree := range broken {
		trees[name] = tree
	}
	at := "--export=" + newStore(t, trees)
	cli(t, "seal", at)
	for name := range broken {
		for _, versions := range [][]string{{"v1", name}, {name, "v1"}} {
			r := finish(t, exec.Command(rootnfsd, append([]string{"diff", "--json", at}, versions...)...))
			var got diffOutput
			if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || r.status != 0 {
				t.Errorf("diff --json %v: status %d, %v: %s", versions, r.status, err, r.stderr)
				continue
			}
			if len(got.Changes) == 0 || got.Summary.Changed == 0 || got.Summary.Packages == nil || len(got.Summary.Packages) > 0 {
				t.Errorf("diff --json %v: %+v; want all but the packages", versions, got.Summary)
			}
			if !strings.Contains(r.stderr, "warning: the packages of "+name+" ") || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("diff --json %v says %q; want a warning about %s", versions, r.stderr, name)
			}
		}
	}
	if text := cli(t, "diff", "v1", "line", at); strings.Contains(text, "by package") || !strings.Contains(text, "changed") {
		t.Errorf("diff prints\n%s", text)
	}
}
