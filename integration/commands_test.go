package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestCommands walks through the life of a store.
func TestCommands(t *testing.T) {
	store := newStore(t, map[string]files{"v1": smallTree, "v2": {"etc/hostname": "golden\n", "new": "new\n"}})
	at := "--export=" + store
	expectVersions := func(promoted string, names ...string) {
		t.Helper()
		var got []string
		for _, v := range cliJSON[[]versionRow](t, "versions", at) {
			got = append(got, v.Name)
			if len(v.Digest) != 64 || v.Objects == 0 || v.Promoted != (v.Name == promoted) {
				t.Errorf("versions: %+v; want a digest, objects, and %s promoted", v, promoted)
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("versions: %q; want %q", got, names)
		}
	}

	cli(t, "seal", "v1", at)
	expectVersions("", "v1")
	cli(t, "seal", at)
	expectVersions("", "v1", "v2")
	cli(t, "promote", "v1", at)
	expectVersions("v1", "v1", "v2")
	expectFailure(t, []string{"remove", "v1", at}, "v1", "promoted")

	cli(t, "promote", "v2", at)
	expectVersions("v2", "v1", "v2")
	cli(t, "rollback", at)
	expectVersions("v1", "v1", "v2")
	expectFailure(t, []string{"rollback", at}, "nothing")
	cli(t, "verify", at)

	cli(t, "remove", "v2", at, "--dry-run")
	expectVersions("v1", "v1", "v2")
	cli(t, "remove", "v2", at)
	expectVersions("v1", "v1")
	if _, err := os.Stat(filepath.Join(store, "v2/new")); err != nil {
		t.Errorf("remove took the golden tree: %v", err)
	}

	type status struct {
		Image, Promoted string
		ServedBy        int `json:"served_by_pid"`
	}
	got := cliJSON[[]status](t, "status", at)
	if want := []status{{"images", "v1", 0}}; !slices.Equal(got, want) {
		t.Errorf("status: %v; want %v", got, want)
	}
	if nodes := cliJSON[[]any](t, "nodes", at); len(nodes) != 0 {
		t.Errorf("nodes: %v; want none", nodes)
	}
	for _, command := range []string{"versions", "status", "nodes"} {
		if cli(t, command, at) == "" {
			t.Errorf("%s prints nothing", command)
		}
	}
}

// TestMistakes holds every error that a user can run into to exit status 1 and
// to words that help.
func TestMistakes(t *testing.T) {
	store := newStore(t, map[string]files{"v1": smallTree, "v2": smallTree, "bookworm-1": smallTree})
	cli(t, "seal", "--export", store)
	empty := newStore(t, nil)
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"no store", []string{"versions", "--export", "/nowhere/images"}, []string{"/nowhere/images"}},
		{"a store that is a file", []string{"versions", "--export", rootnfsd}, []string{rootnfsd, "not a directory"}},
		{"an empty store", []string{"serve", "--export", empty, "--listen", "127.0.0.1:0", "--portmap", "off"}, []string{empty, "empty"}},
		{"an unknown version", []string{"promote", "v11", "--export", store}, []string{"v11", "did you mean", "v1"}},
		{"an unknown version with a longer name", []string{"promote", "bokworm-1", "--export", store}, []string{"did you mean bookworm-1"}},
		{"removing an unknown version", []string{"remove", "v3", "--export", store}, []string{"v3", "v1"}},
		{"sealing an unknown tree", []string{"seal", "v3", "--export", store}, []string{"v3"}},
		{"no version", []string{"promote", "--export", store}, []string{"version"}},
		{"a name that cannot be mounted", []string{"seal", "v 1,ro", "--from", filepath.Join(store, "v1"), "--export", store}, []string{"v 1,ro"}},
		{"a bad network", []string{"serve", "--export", store, "--allow", "192.168.1.0/33"}, []string{"192.168.1.0/33", "192.168.1.0/24"}},
		{"a bad address to listen on", []string{"serve", "--export", store, "--listen", "here"}, []string{"--listen", "here"}},
		{"rolling back nothing", []string{"rollback", "--export", store}, []string{"nothing"}},
		{"an unknown command", []string{"prmote", "v1"}, []string{"prmote"}},
		{"an unknown flag", []string{"promote", "--exprt", store, "v1"}, []string{"exprt"}},
	} {
		t.Run(c.name, func(t *testing.T) { expectFailure(t, c.args, c.want...) })
	}
	if got := versionNames(t, store); !slices.Equal(got, []string{"bookworm-1", "v1", "v2"}) {
		t.Errorf("after all mistakes there are %q", got)
	}
}

// TestTaken starts a server where another one is.
func TestTaken(t *testing.T) {
	net := newNet(t)
	store, other := newStore(t, map[string]files{"v1": smallTree}), newStore(t, map[string]files{"v1": smallTree})
	serve(t, net, "--export", store)
	process := func(r result) string {
		return fmt.Sprint(cliJSON[[]struct {
			PID int `json:"served_by_pid"`
		}](t, "status", "--export", store)[0].PID)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"the store", []string{"--export", store, "--listen", "127.0.0.1:0", "--portmap", "off"}, "served already"},
		{"the NFS port", []string{"--export", other, "--portmap", "off"}, "2049"},
		{"the port of the port mapper", []string{"--export", other, "--listen", "127.0.0.1:0", "--portmap", "127.0.0.1:2049"}, "2049"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := finish(t, net.Command(rootnfsd, append([]string{"serve"}, c.args...)...))
			expectResult(t, c.args, r, c.want, "process "+process(r))
		})
	}
}

// TestUnreadable seals as a user who may not read a file.
func TestUnreadable(t *testing.T) {
	require(t)
	const nobody = 65534
	store := newStore(t, map[string]files{"v1": smallTree, "v2": smallTree})
	for path := store; path != os.TempDir(); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(store, "v2/etc/hostname")
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(store, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) result {
		cmd := exec.Command(rootnfsd, append(args, "--export", store)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return finish(t, cmd)
	}
	if r := run("promote", "v1"); r.status != 0 {
		t.Fatalf("an ordinary user cannot promote a tree that all may read: %s", r.stderr)
	}
	expectResult(t, []string{"promote", "v2"}, run("promote", "v2"), "etc/hostname", "root")
	if r := run("versions", "--json"); !strings.Contains(r.stdout, `"v1"`) || strings.Contains(r.stdout, `"v2"`) {
		t.Errorf("after the failure: %s; want v1 and no v2", r.stdout)
	}
}

// TestNoSpace seals into a file system that is too small.
func TestNoSpace(t *testing.T) {
	require(t)
	source := newStore(t, map[string]files{"v1": smallTree, "v2": {"big": randomBytes(4 << 20)}})
	store := newStore(t, nil)
	if err := syscall.Mount("tmpfs", store, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(store, 0); err != nil {
			t.Error(err)
		}
	})
	cli(t, "seal", "v1", "--from", filepath.Join(source, "v1"), "--export", store)
	cli(t, "promote", "v1", "--export", store)
	expectFailure(t, []string{"seal", "v2", "--from", filepath.Join(source, "v2"), "--export", store}, "space")
	if got := versionNames(t, store); !slices.Equal(got, []string{"v1"}) {
		t.Errorf("after the failure there are %q; want v1", got)
	}
	cli(t, "verify", "--export", store)
}

// expectFailure runs rootnfsd and expects exit status 1 and an error with all
// of want.
func expectFailure(t *testing.T, args []string, want ...string) {
	t.Helper()
	expectResult(t, args, finish(t, exec.Command(rootnfsd, args...)), want...)
}

func expectResult(t *testing.T, args []string, r result, want ...string) {
	t.Helper()
	if r.status != 1 {
		t.Errorf("rootnfsd %q: exit status %d; want 1", args, r.status)
	}
	for _, w := range want {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("rootnfsd %q: %q; want %q in it", args, r.stderr, w)
		}
	}
}
