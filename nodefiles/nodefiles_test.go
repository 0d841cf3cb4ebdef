package nodefiles_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/layer"
	"github.com/rootnfsd/rootnfsd/nodefiles"
)

var pi01 = nodefiles.Node{
	Name: "pi-01", Address: netip.MustParseAddr("192.0.2.11"), MAC: "dc:a6:32:01:36:c2", Serial: "0660cd37",
	Labels: []string{"canary", "rack1"}, Image: "images", Version: "v2",
}

// debian is a tree with the directories that matter here.
func debian() *fstest.MemTree {
	t := fstest.NewMemTree(42)
	for _, dir := range []string{"/etc", "/etc/ssh"} {
		t.SetAttr(t.Mkdir(dir, 0o755), func(a *fs.Attr) { a.Mtime = fs.Time{Sec: 1_700_000_000, Nsec: 5} })
	}
	return t
}

// maker is a Maker over directories of its own.
type maker struct {
	*nodefiles.Maker
	t *testing.T
}

func newMaker(t *testing.T, identity bool) *maker {
	t.Helper()
	m, err := nodefiles.New(nodefiles.Options{Dir: t.TempDir(), Identity: identity, Secrets: filepath.Join(t.TempDir(), "node-keys")})
	if err != nil {
		t.Fatal(err)
	}
	return &maker{m, t}
}

// restart is the Maker of the next process.
func (m *maker) restart() *maker {
	m.t.Helper()
	next, err := nodefiles.New(m.Options)
	if err != nil {
		m.t.Fatal(err)
	}
	return &maker{next, m.t}
}

func (m *maker) write(name, content string) string {
	m.t.Helper()
	path := filepath.Join(m.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// files returns the files of a node by path; all must be well.
func (m *maker) files(n nodefiles.Node) map[string]layer.File {
	m.t.Helper()
	files, problems := m.all(n)
	if len(problems) > 0 {
		m.t.Fatalf("problems: %v", problems)
	}
	return files
}

func (m *maker) all(n nodefiles.Node) (map[string]layer.File, []error) {
	m.t.Helper()
	list, problems := m.For(n, debian())
	if good, refused := layer.Check(debian(), list); len(refused) > 0 || len(good) != len(list) {
		m.t.Errorf("it cannot be laid over the tree: %v", refused)
	}
	byPath := map[string]layer.File{}
	for _, f := range list {
		byPath[f.Path] = f
	}
	return byPath, problems
}

// problem returns the one problem that there is.
func (m *maker) problem(n nodefiles.Node) string {
	m.t.Helper()
	_, problems := m.all(n)
	if len(problems) != 1 {
		m.t.Fatalf("%d problems, want one: %v", len(problems), problems)
	}
	return problems[0].Error()
}

func paths(files map[string]layer.File) string {
	var list []string
	for p := range files {
		list = append(list, p)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

const identityPaths = "/etc/hostname /etc/machine-id /etc/ssh/ssh_host_ecdsa_key /etc/ssh/ssh_host_ecdsa_key.pub /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub"

func TestIdentity(t *testing.T) {
	m := newMaker(t, true)
	files := m.files(pi01)
	if got := paths(files); got != identityPaths {
		t.Fatalf("files: %s", got)
	}
	if f := files["/etc/hostname"]; f.Content != "pi-01\n" || f.Mode != 0o644 || f.UID != 0 {
		t.Errorf("hostname: %+v", f)
	}
	id := files["/etc/machine-id"]
	if !regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\n$`).MatchString(id.Content) || id.Mode != 0o444 {
		t.Errorf("machine-id: %+v", id)
	}
	if told, err := m.MachineID("pi-01"); err != nil || told+"\n" != id.Content {
		t.Errorf("machine-id %q is told, %v; the file has %q", told, err, id.Content)
	}
	for kind, algorithm := range map[string]string{"ed25519": ssh.KeyAlgoED25519, "ecdsa": ssh.KeyAlgoECDSA256} {
		private, public := files["/etc/ssh/ssh_host_"+kind+"_key"], files["/etc/ssh/ssh_host_"+kind+"_key.pub"]
		if private.Mode != 0o600 || public.Mode != 0o644 {
			t.Errorf("modes of the %s keys: %o, %o", kind, private.Mode, public.Mode)
		}
		signer, err := ssh.ParsePrivateKey([]byte(private.Content))
		if err != nil {
			t.Fatal(err)
		}
		key, comment, _, rest, err := ssh.ParseAuthorizedKey([]byte(public.Content))
		if err != nil || comment != "root@pi-01" || len(rest) > 0 || !bytes.Equal(key.Marshal(), signer.PublicKey().Marshal()) || key.Type() != algorithm {
			t.Errorf("the public %s key %q is not that of the private one: %v", kind, public.Content, err)
		}
	}
	if again := m.restart().files(pi01); fmt.Sprint(again) != fmt.Sprint(files) {
		t.Error("another process makes other files")
	}

	named := pi01
	named.Hostname, named.Address = "kitchen.example", netip.MustParseAddr("192.0.2.99")
	if got := m.files(named); got["/etc/hostname"].Content != "kitchen.example\n" || got["/etc/machine-id"] != id {
		t.Errorf("by another host name and address: %+v, %+v", got["/etc/hostname"], got["/etc/machine-id"])
	}
	other := pi01
	other.Name = "pi-02"
	for p, f := range m.files(other) {
		if f.Content == files[p].Content {
			t.Errorf("%s is the same for two nodes", p)
		}
	}
}

func TestIdentityIsOfNamedNodes(t *testing.T) {
	m := newMaker(t, true)
	m.write("_all/etc/motd", "hello")
	m.write("192.0.2.40/etc/issue", "you have no name")
	unnamed := nodefiles.Node{Address: netip.MustParseAddr("192.0.2.40")}
	if got := paths(m.files(unnamed)); got != "/etc/issue /etc/motd" {
		t.Errorf("files of a node without a name: %s", got)
	}
	m = newMaker(t, false)
	if got := paths(m.files(pi01)); got != "" {
		t.Errorf("files where none are wanted: %s", got)
	}
	if _, err := os.Stat(m.Secrets); err == nil {
		t.Error("secrets were made that nobody needs")
	}
}

// TestIdentityNeedsDirectories: where the image has none, nothing is made up.
func TestIdentityNeedsDirectories(t *testing.T) {
	m := newMaker(t, true)
	bare, noSSH := fstest.NewMemTree(42), fstest.NewMemTree(42)
	noSSH.Mkdir("/etc", 0o755)
	noSSH.Symlink("/etc/ssh", "/usr/etc/ssh")
	for tree, want := range map[*fstest.MemTree]int{bare: 0, noSSH: 2} {
		if files, problems := m.For(pi01, tree); len(files) != want || len(problems) > 0 {
			t.Errorf("%d files, %v; want %d", len(files), problems, want)
		}
	}
}

// TestSecretsAreKept: only their owner can read them, and what is damaged is said and left alone.
func TestSecretsAreKept(t *testing.T) {
	m := newMaker(t, true)
	files := m.files(pi01)
	secrets := map[string]os.FileMode{
		"": 0o700, "pi-01": 0o700, "pi-01/ssh_host_ed25519_key": 0o600, "pi-01/ssh_host_ecdsa_key": 0o600, "_seed": 0o600,
	}
	for name, want := range secrets {
		if info, err := os.Stat(filepath.Join(m.Secrets, name)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
	for name, want := range map[string]string{
		"pi-01/ssh_host_ed25519_key": strings.ReplaceAll(identityPaths, " /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub", ""),
		"_seed":                      strings.ReplaceAll(identityPaths, "/etc/machine-id ", ""),
	} {
		path := filepath.Join(m.Secrets, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, damage := range [][]byte{nil, good[:len(good)/2], append(slices.Clone(good), make([]byte, 1<<20)...)} {
			if err := os.WriteFile(path, damage, 0o600); err != nil {
				t.Fatal(err)
			}
			left, problems := m.restart().all(pi01)
			if len(problems) != 1 || !strings.Contains(problems[0].Error(), path) {
				t.Errorf("%s damaged: problems %v; want one that names it", name, problems)
			}
			if got := paths(left); got != want {
				t.Errorf("%s damaged: files %s; want %s", name, got, want)
			}
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, damage) {
				t.Errorf("%s was written over", name)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if again := m.files(pi01); fmt.Sprint(again) != fmt.Sprint(files) {
		t.Error("with all restored the files are others")
	}
}

// TestSecretsOfACrash: what an interrupted process has left is taken away by the next.
func TestSecretsOfACrash(t *testing.T) {
	m := newMaker(t, true)
	dir := filepath.Join(m.Secrets, "pi-01")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, ".tmp-123")
	if err := os.WriteFile(left, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.files(pi01)
	if _, err := os.Stat(left); err == nil {
		t.Error("the rest of a crash is still there")
	}
}

// TestKeysAreMadeOnce: of many mounts of a new node at once all have the same keys.
func TestKeysAreMadeOnce(t *testing.T) {
	m := newMaker(t, true)
	got := make([]string, 8)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			files, _ := m.For(pi01, debian())
			good, _ := layer.Check(debian(), files)
			got[i] = fmt.Sprint(good)
		})
	}
	wg.Wait()
	for _, g := range got[1:] {
		if g != got[0] {
			t.Fatal("two mounts have different files")
		}
	}
}

func TestFilesOfDirectory(t *testing.T) {
	m := newMaker(t, false)
	m.write("_all/etc/motd", "for all")
	m.write("_all/etc/issue", "for all")
	m.write("pi-01/etc/issue", "for pi-01")
	m.write("pi-02/etc/secret", "for pi-02")
	m.write("stray", "in no directory of a node")
	special := m.write("pi-01/opt/new/tool", "#!/bin/sh\n")
	at := time.Unix(1_234_567_890, 987_654_321)
	if err := os.Chtimes(special, at, at); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	if uid == 0 {
		uid, gid = 1234, 5678
	}
	if err := os.Chown(special, uid, gid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Chmod(special, 0o4751); err != nil {
		t.Fatal(err)
	}
	files := m.files(pi01)
	if got := paths(files); got != "/etc/issue /etc/motd /opt/new/tool" {
		t.Fatalf("files: %s", got)
	}
	if got := files["/etc/issue"].Content + ", " + files["/etc/motd"].Content; got != "for pi-01, for all" {
		t.Errorf("issue and motd: %s", got)
	}
	want := layer.File{Path: "/opt/new/tool", Mode: 0o4751, UID: uint32(uid), GID: uint32(gid), Mtime: fs.Time{Sec: 1_234_567_890, Nsec: 987_654_321}, Content: "#!/bin/sh\n"}
	if got := files["/opt/new/tool"]; got != want {
		t.Errorf("the tool is %+v, want %+v", got, want)
	}
}

// TestDirectoryWinsOverIdentity: an operator may give a node another host name, or the keys that it had.
func TestDirectoryWinsOverIdentity(t *testing.T) {
	m := newMaker(t, true)
	m.write("_all/etc/hostname.tmpl", "{{.Name}}.example\n")
	if got := m.files(pi01)["/etc/hostname"].Content; got != "pi-01.example\n" {
		t.Errorf("hostname: %q", got)
	}
}

// TestWhatIsLeftOut: it is named, with the line where there is one, and the rest is there.
func TestWhatIsLeftOut(t *testing.T) {
	for name, c := range map[string]struct {
		make func(m *maker)
		want []string
	}{
		"a template with an error":       {func(m *maker) { m.write("_all/etc/bad.tmpl", "one\n{{if}}\n") }, []string{"_all/etc/bad.tmpl: line 2", "if"}},
		"a template that asks for more":  {func(m *maker) { m.write("pi-01/etc/bad.tmpl", "one\ntwo\n{{.Salary}}") }, []string{"pi-01/etc/bad.tmpl: line 3", "Salary"}},
		"a template without a name":      {func(m *maker) { m.write("_all/etc/.tmpl", "x") }, []string{"_all/etc/.tmpl"}},
		"a template without an end":      {func(m *maker) { m.write("_all/bad.tmpl", "{{range 1000000000000}}{{end}}") }, []string{"_all/bad.tmpl: line 1:8: ", "only .Labels can be ranged over"}},
		"a symlink":                      {func(m *maker) { symlink(m, "/etc/shadow", "_all/bad") }, []string{"_all/bad: a symlink"}},
		"a symlink within the directory": {func(m *maker) { symlink(m, "good", "_all/bad") }, []string{"_all/bad: a symlink"}},
		"a symlink to a directory":       {func(m *maker) { symlink(m, m.Secrets, "_all/bad") }, []string{"_all/bad: a symlink"}},
		"a symlink for a node":           {func(m *maker) { symlink(m, m.t.TempDir(), "pi-01") }, []string{"pi-01 is no directory"}},
		"a file for a node":              {func(m *maker) { m.write("pi-01", "x") }, []string{"pi-01 is no directory"}},
		"a FIFO": {func(m *maker) {
			if err := syscall.Mkfifo(filepath.Join(m.Dir, "_all/bad"), 0o644); err != nil {
				m.t.Fatal(err)
			}
		}, []string{"_all/bad: ", "only regular files"}},
		"two of one name":          {func(m *maker) { m.write("_all/x", "1"); m.write("_all/x.tmpl", "2") }, []string{"_all/x.tmpl: _all/x is of the same name"}},
		"a file that is too large": {func(m *maker) { m.write("_all/bad", strings.Repeat("x", 1<<20+1)) }, []string{"_all/bad: ", "1048576 bytes"}},
		"more than there may be":   {func(m *maker) { m.write("_all/a", strings.Repeat("x", 1<<20-10)); m.write("_all/b", "more than ten") }, []string{"_all/b: ", "1048576 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMaker(t, false)
			m.write("_all/good", "good")
			c.make(m)
			said := m.problem(pi01)
			for _, want := range c.want {
				if !strings.Contains(said, want) {
					t.Errorf("%q does not say %q", said, want)
				}
			}
			files, _ := m.all(pi01)
			if files["/good"].Content != "good" || files["/bad"].Path+files["/etc/bad"].Path != "" {
				t.Errorf("files: %s", paths(files))
			}
		})
	}
}

func symlink(m *maker, to, name string) {
	m.t.Helper()
	if err := os.Symlink(to, filepath.Join(m.Dir, name)); err != nil {
		m.t.Fatal(err)
	}
}

func TestTooManyFiles(t *testing.T) {
	m := newMaker(t, true)
	for i := range layer.MaxFiles + 5 {
		m.write(fmt.Sprintf("_all/%04d", i), "")
	}
	files, problems := m.all(pi01)
	if len(files) != layer.MaxFiles || len(problems) != 1 || !strings.Contains(problems[0].Error(), "1000") {
		t.Errorf("%d files, %v", len(files), problems)
	}
	if files["/etc/hostname"].Path == "" {
		t.Error("the host name had to go")
	}
}

// TestManyProblems: a directory that was meant to be another does not fill the log.
func TestManyProblems(t *testing.T) {
	m := newMaker(t, false)
	m.write("_all/good", "")
	for i := range 100 {
		symlink(m, "x", fmt.Sprintf("_all/%d", i))
	}
	if _, problems := m.all(pi01); len(problems) != 21 || problems[20].Error() != "and 80 more" {
		t.Errorf("%d problems, the last: %v", len(problems), problems[len(problems)-1])
	}
}

// TestNamesStayInside: whatever a node is called, its files are those of a directory of that name.
func TestNamesStayInside(t *testing.T) {
	m := newMaker(t, true)
	m.write("_all/x", "")
	for _, name := range []string{".", "..", "../pi-01", "/etc", "a/b", "_all", "_seed", ".hidden", strings.Repeat("n", 300)} {
		n := pi01
		n.Name = name
		if files, problems := m.For(n, debian()); len(files) > 0 || len(problems) != 1 {
			t.Errorf("%q: %d files, %v", name, len(files), problems)
		}
	}
	if _, err := os.Stat(m.Secrets); err == nil {
		t.Error("something was made")
	}
}

func TestNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, file + "-missing"} {
		if _, err := nodefiles.New(nodefiles.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("New with %s: %v", dir, err)
		}
	}
	// It goes while the server runs: the nodes boot without, and it is said.
	m := newMaker(t, true)
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}
	if files, problems := m.all(pi01); paths(files) != identityPaths || len(problems) != 1 {
		t.Errorf("with the directory gone: %s, %v", paths(files), problems)
	}
}
