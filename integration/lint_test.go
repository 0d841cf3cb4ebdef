package integration

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/integration/lab"
)

// lintOutput is what lint --json prints.
type lintOutput struct {
	Errors, Warnings, Infos int
	Findings                []struct{ Rule, Severity, File, Reason, Fix string }
}

// bootableTree is a tree that looks like a root, with more files.
func bootableTree(more files) files {
	tree := files{
		"etc/os-release": "ID=debian\n", "etc/passwd": "root:x:0:0::/:/bin/sh\n", "sbin/init": "#!/bin/sh\n",
		"dev/.keep": "", "proc/.keep": "", "run/.keep": "", "sys/.keep": "",
	}
	maps.Copy(tree, more)
	return tree
}

// TestLint finds an error in a version, which promote then refuses.
func TestLint(t *testing.T) {
	store := newStore(t, map[string]files{
		"v1": bootableTree(nil),
		"v2": bootableTree(files{"etc/fstab": "PARTUUID=1-01 /boot/firmware vfat defaults 0 2\n", "etc/machine-id": "b08dfa6083e7567a1921a715000001fb\n"}),
	})
	at := "--export=" + store
	if got := cli(t, "lint", "v1", at); got != "v1: nothing found\n" {
		t.Errorf("lint of a tree that is not sealed prints %q", got)
	}
	cli(t, "promote", "v1", at)

	sealed := cli(t, "seal", at)
	for _, want := range []string{"error: /etc/fstab: line 1", "warning: /etc/machine-id: ", "v2 has 1 error, 1 warning (rootnfsd lint v2"} {
		if !strings.Contains(sealed, want) {
			t.Errorf("seal prints\n%s; want %q in it", sealed, want)
		}
	}
	r := finish(t, exec.Command(rootnfsd, "lint", "v2", at))
	if r.status != 1 || r.stderr != "" || !strings.Contains(r.stdout, "fix: put a # in front of line 1  [fstab-disk]") {
		t.Errorf("lint: exit status %d\n%s%s; want 1, and how to fix it", r.status, r.stdout, r.stderr)
	}
	if strings.Contains(r.stdout, "\x1b") {
		t.Error("lint colours what goes to a pipe")
	}
	records, err := filepath.Glob(store + "/.rootnfsd/lint/*.json")
	if len(records) != 2 || err != nil {
		t.Errorf("there are records of %q, %v; want those of two versions", records, err)
	}

	for _, args := range [][]string{{"promote", "v2", at}, {"promote", "v2", at, "--no-verify"}} {
		r = finish(t, exec.Command(rootnfsd, args...))
		if r.status != 1 || !strings.Contains(r.stderr, "/etc/fstab: line 1") || !strings.Contains(r.stderr, "promote v2 --force") {
			t.Errorf("promote: exit status %d, %s; want 1, why, and how to do it all the same", r.status, r.stderr)
		}
	}
	if got := promoted(t, store); got != "v1" {
		t.Errorf("%s is promoted; want v1", got)
	}
	cli(t, "promote", "v2", at, "--force")
	if got := promoted(t, store); got != "v2" {
		t.Errorf("%s is promoted; want v2", got)
	}

	// What is kept is about content: damaged or lost, it is found again.
	for i, path := range records {
		if i == 0 {
			write(t, path, "{")
		} else if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(store + "/v2/etc/fstab"); err != nil {
		t.Fatal(err)
	}
	if r := finish(t, exec.Command(rootnfsd, "lint", "v2", at, "--json")); r.status != 1 || !strings.Contains(r.stdout, `"errors": 1`) {
		t.Errorf("lint --json: exit status %d, %s; want the error that was sealed", r.status, r.stdout)
	}
	if got := cliJSON[lintOutput](t, "lint", store+"/v2"); got.Errors != 0 || got.Warnings != 1 || len(got.Findings) != 1 {
		t.Errorf("lint of the directory: %+v; want one warning", got)
	}
	cli(t, "seal", "v2", at)
	cli(t, "promote", "v2", at)

	if rules := cli(t, "lint", "--rules"); !strings.Contains(rules, "fstab-disk (error)") {
		t.Errorf("lint --rules prints\n%s", rules)
	}
	if r := finish(t, exec.Command(rootnfsd, "lint", "v3", at)); r.status != 1 || !strings.Contains(r.stderr, "there is no version v3") {
		t.Errorf("lint of nothing: exit status %d, %s", r.status, r.stderr)
	}
}

// TestSealFix puts a tree right while it is sealed, so that it can be promoted.
func TestSealFix(t *testing.T) {
	const fstab, id = "PARTUUID=1-01\t/boot/firmware\tvfat\tdefaults 0 2\n", "b08dfa6083e7567a1921a715000001fb\n"
	store := newStore(t, map[string]files{"v1": bootableTree(files{"etc/fstab": fstab, "etc/machine-id": id})})
	at := "--export=" + store
	shown := cli(t, "seal", "v1", "--fix", at)
	for _, want := range []string{"fixed /etc/fstab: commented out line 1 [fstab-disk]\n--- a/etc/fstab\n+++ b/etc/fstab\n@@ -1,1 +1,1 @@\n-" + fstab + "+#" + fstab, "fixed /etc/machine-id: emptied", "sealed v1: "} {
		if !strings.Contains(shown, want) {
			t.Errorf("seal --fix prints\n%s; want %q in it", shown, want)
		}
	}
	if got := cli(t, "cat", "v1:/etc/fstab", at); got != "#"+fstab {
		t.Errorf("the version has fstab %q", got)
	}
	if got := cli(t, "cat", "v1:/etc/rootnfsd/fixes.json", at); !strings.Contains(got, `"rule": "machine-id"`) {
		t.Errorf("the version says that this was fixed: %s", got)
	}
	if b, err := os.ReadFile(store + "/v1/etc/machine-id"); string(b) != id || err != nil {
		t.Errorf("the tree was changed: %q, %v", b, err)
	}
	cli(t, "promote", "v1", at)
	if again := cli(t, "seal", "v1", "--fix", at); !strings.Contains(again, "v1 is sealed already, unchanged") {
		t.Errorf("sealed again it is another version:\n%s", again)
	}
	type sealed struct{ Fixes, Findings []struct{ Rule string } }
	if got := cliJSON[[]sealed](t, "seal", "v1", "--fix", at); len(got) != 1 || len(got[0].Fixes) != 2 || len(got[0].Findings) != 0 {
		t.Errorf("seal --json: %+v; want two fixes and nothing left", got)
	}
	for _, args := range [][]string{{"--caps", "setuid"}, {"--fix", "--caps", "some"}} {
		if r := finish(t, exec.Command(rootnfsd, append([]string{"seal", "v1", at}, args...)...)); r.status != 1 || !strings.Contains(r.stderr, "--caps") {
			t.Errorf("seal %q: exit status %d, %s", args, r.status, r.stderr)
		}
	}
}

// TestLintGolden finds nothing in a Debian root but that its journal is kept, as
// is the default, and tells a kernel of it from another by reading it.
func TestLintGolden(t *testing.T) {
	golden := openGolden(t)
	got := cliJSON[lintOutput](t, "lint", golden.Tree("v1"))
	if len(got.Findings) != 1 || got.Findings[0].Rule != "journal-persistent" || got.Infos != 1 {
		t.Errorf("finds %+v; want the journal alone", got.Findings)
	}

	m, err := golden.Boot("v1", lab.Machine{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// Other names, so that what is inside counts.
	for from, to := range map[string]string{m.Kernel: "boot/vmlinuz-1", m.Initrd: "boot/initrd.img-1"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, to), string(b))
	}
	release := strings.TrimPrefix(filepath.Base(m.Kernel), "vmlinuz-")
	got = cliJSON[lintOutput](t, "lint", dir)
	if len(got.Findings) != 1 || got.Findings[0].Rule != "kernel-modules" || !strings.Contains(got.Findings[0].Reason, "it is "+release+",") {
		t.Errorf("finds %+v; want that there are no modules for %s", got.Findings, release)
	}
}
