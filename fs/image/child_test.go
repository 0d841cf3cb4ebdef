package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-git/go-billy/v5"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/source"
	"github.com/rootnfsd/rootnfsd/fs/source/overlay"
)

// The crash tests run this test binary again, to do one thing to a store and be
// killed, by SIGKILL from its own hand, at the k-th step of it.
const (
	crashDo    = "ROOTNFSD_TEST_CRASH_DO"    // what to do: seal, import, remove, compact, look or starve
	crashStore = "ROOTNFSD_TEST_CRASH_STORE" // to which store
	crashStep  = "ROOTNFSD_TEST_CRASH_STEP"  // and at which step to die, from 1
)

func TestMain(m *testing.M) {
	if os.Getenv(crashDo) != "" {
		crash()
		os.Exit(0) // it took fewer steps
	}
	os.Exit(m.Run())
}

// crash is what the child does.
func crash() {
	left, err := strconv.Atoi(os.Getenv(crashStep))
	must(err)
	s, err := OpenStore(os.Getenv(crashStore))
	must(err)
	s.step = func(string) {
		if left--; left == 0 {
			must(syscall.Kill(os.Getpid(), syscall.SIGKILL))
			select {} // until it arrives
		}
	}
	switch os.Getenv(crashDo) {
	case "seal":
		src, err := source.OpenDir(filepath.Join(s.Dir(), "v1"))
		must(err)
		_, err = s.Seal(context.Background(), "v1", quiet{src}, SealOptions{})
		must(err)
	case "import":
		amend := func(tree billy.Filesystem) (billy.Filesystem, error) { return overlay.New(tree), nil }
		_, err := s.Import(context.Background(), "v1", putNew, ImportOptions{Amend: amend})
		must(err)
	case "remove":
		_, err := s.Remove("v1", Digest{})
		must(err)
	case "compact":
		_, err := s.Compact(context.Background(), CompactOptions{})
		must(err)
	case "look":
		infos, err := s.Versions()
		must(err)
		if len(infos) != 2 || infos[0].Err != nil {
			panic(fmt.Sprint("versions ", infos))
		}
		if _, err := s.Open("v1"); !errors.Is(err, os.ErrPermission) {
			panic(fmt.Sprint("Open: ", err))
		}
		if _, err := s.Verify(context.Background(), nil, nil); !errors.Is(err, os.ErrPermission) {
			panic(fmt.Sprint("Verify: ", err))
		}
	case "starve":
		starve(s)
	}
}

// starve opens version v1, which has two packs, with one file descriptor left,
// and then with enough.
func starve(s *Store) {
	f, err := os.Open(os.DevNull)
	must(err)
	var enough syscall.Rlimit
	must(syscall.Getrlimit(syscall.RLIMIT_NOFILE, &enough))
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(f.Fd()) + 1, Max: enough.Max}))
	must(f.Close())
	if _, err := s.Open("v1"); !errors.Is(err, syscall.EMFILE) {
		panic(fmt.Sprint("Open: ", err))
	}
	must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &enough))
	v, err := s.Open("v1")
	must(err)
	if len(v.packs) != 2 || len(v.Problems()) > 0 {
		panic(fmt.Sprint(len(v.packs), " packs, problems ", v.Problems()))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// crashAt runs the child and reports whether it was killed.
func crashAt(t *testing.T, do, store string, step int) bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDo+"="+do, crashStore+"="+store, crashStep+"="+strconv.Itoa(step))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%s: %v\n%s", do, err, out)
	}
	return true
}

// crashedStore is a store with versions v0 and v1, of which the tree of v1 has
// changed since.
func crashedStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	writeTree(t, s, "v0", "keep", fstest.Bytes(70_000))
	writeTree(t, s, "v1", "old", fstest.Bytes(80_000))
	for _, v := range []string{"v0", "v1"} {
		mustSeal(t, s, v)
	}
	writeTree(t, s, "v1", "new", fstest.Bytes(90_000))
	return s
}

func writeTree(t *testing.T, s *Store, tree, text string, large []byte) {
	t.Helper()
	dir := filepath.Join(s.Dir(), tree)
	err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(dir+"/text", []byte(text), 0o644), os.WriteFile(dir+"/large", large, 0o644))
	if err != nil {
		t.Fatal(err)
	}
}

func mustSeal(t *testing.T, s *Store, name string) {
	t.Helper()
	src, err := source.OpenDir(filepath.Join(s.Dir(), name))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := s.Seal(t.Context(), name, quiet{src}, SealOptions{}); err != nil {
		t.Fatal(err)
	}
}

// quiet is a directory that nobody is writing to, so that the next seal can rely
// on the stamps of this one.
type quiet struct{ *source.Dir }

func (quiet) CtimeRule() (string, time.Duration, bool) { return "today", 0, true }

// TestClockSetBack: a seal during which the clock was set back leaves no stamps,
// since what was written meanwhile looks old.
func TestClockSetBack(t *testing.T) {
	dir := t.TempDir()
	src, err := source.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	c := newClock(quiet{src})
	if c.setBack() {
		t.Error("set back, though nobody did")
	}
	c.wall = c.wall.Add(time.Minute)
	if !c.setBack() {
		t.Error("not set back")
	}
}

// textOf returns the content of /text in a version, empty if there is none.
func textOf(t *testing.T, s *Store, name string) string {
	t.Helper()
	v, err := s.Open(name)
	if isMissing(err) {
		return ""
	}
	if err != nil {
		t.Error(err)
		return ""
	}
	id, err := v.Lookup(rootCred, 1, fs.Name("text"))
	if err != nil {
		t.Error(err)
		return ""
	}
	var b [10]byte
	n, _, err := v.Read(rootCred, id, 0, b[:], false)
	if err != nil {
		t.Error(err)
	}
	return string(b[:n])
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// checkHealthy makes sure that a store has nothing bad in it, nor leftovers.
func checkHealthy(t *testing.T, s *Store) {
	t.Helper()
	if damage, err := s.Verify(t.Context(), nil, nil); err != nil || len(damage) > 0 {
		t.Errorf("Verify: %v, %v", damage, err)
	}
	if left := files(t, s.StateDir()+"/*/.tmp-*"); len(left) > 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

// putNew puts what the tree of v1 is after it changed (see crashedStore).
func putNew(sink source.Sink) error {
	put := func(name string, content []byte) error {
		m := &source.Meta{Kind: fs.Regular, Mode: 0o644, Size: uint64(len(content))}
		return sink.Put(name, m, "", nil, bytes.NewReader(content))
	}
	return errors.Join(put("text", []byte("new")), put("large", fstest.Bytes(90_000)))
}

func TestCrashDuringSeal(t *testing.T) { crashWhileSealing(t, "seal", 5) }

func TestCrashDuringImport(t *testing.T) { crashWhileSealing(t, "import", 7) }

// crashWhileSealing crashes at each step of something that changes version v1. At some
// of them, so many at least, the old one is left.
func crashWhileSealing(t *testing.T, do string, before int) {
	states := make(map[string]int)
	for step := 1; ; step++ {
		s := crashedStore(t)
		oldName := supersededName("v1", digestOf(t, s, "v1"))
		killed := crashAt(t, do, s.Dir(), step)
		s, err := OpenStore(s.Dir()) // which also tidies
		if err != nil {
			t.Fatal(err)
		}
		checkHealthy(t, s)
		if got := textOf(t, s, "v0"); got != "keep" {
			t.Errorf("step %d: v0 says %q", step, got)
		}
		v1, old := textOf(t, s, "v1"), textOf(t, s, oldName)
		states[v1]++
		switch {
		case v1 == "old" && (old == "" || old == "old"):
		case v1 == "new" && old == "old":
		default:
			t.Errorf("step %d: v1 says %q, and the one before %q", step, v1, old)
		}
		mustSeal(t, s, "v1")
		if got := textOf(t, s, "v1"); got != "new" {
			t.Errorf("step %d: sealed again, v1 says %q", step, got)
		}
		checkHealthy(t, s)
		if !killed {
			break
		}
	}
	if states["old"] < before || states["new"] < 2 {
		t.Errorf("the crashes were in these states only: %v", states)
	}
}

func digestOf(t *testing.T, s *Store, name string) Digest {
	t.Helper()
	h, err := readHeader(s.indexPath(name))
	if err != nil {
		t.Fatal(err)
	}
	return h.digest
}

func TestCrashDuringRemove(t *testing.T) {
	states := make(map[string]int)
	for step := 1; ; step++ {
		s := crashedStore(t)
		killed := crashAt(t, "remove", s.Dir(), step)
		s, err := OpenStore(s.Dir())
		if err != nil {
			t.Fatal(err)
		}
		checkHealthy(t, s)
		v1 := textOf(t, s, "v1")
		states[v1]++
		if v0 := textOf(t, s, "v0"); v0 != "keep" || v1 != "old" && v1 != "" {
			t.Errorf("step %d: v0 says %q, v1 %q", step, v0, v1)
		}
		mustSeal(t, s, "v1")
		for _, v := range []string{"v1", "v0"} {
			if _, err := s.Remove(v, Digest{}); err != nil {
				t.Errorf("step %d: %v", step, err)
			}
		}
		for _, name := range slices.Backward(files(t, s.versionsDir()+"/v1~*")) {
			if _, err := s.Remove(strings.TrimSuffix(filepath.Base(name), indexSuffix), Digest{}); err != nil {
				t.Error(err)
			}
		}
		if left := files(t, s.packsDir()+"/*"); len(left) > 0 {
			t.Errorf("step %d: everything removed, but %v", step, left)
		}
		if !killed {
			break
		}
	}
	if states["old"] < 1 || states[""] < 2 {
		t.Errorf("the crashes were in these states only: %v", states)
	}
}

// sparseStore is a store with versions v2 and v4, whose content lies in two packs
// that are more than half garbage.
func sparseStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		name, text string
		large      int
		more       []int
	}{{"v1", "one", 100_000, []int{200_000}}, {"v2", "two", 100_000, nil}, {"v3", "three", 300_000, []int{400_000}}, {"v4", "four", 300_000, nil}} {
		writeTree(t, s, v.name, v.text, fstest.Bytes(v.large))
		for _, n := range v.more {
			if err := os.WriteFile(filepath.Join(s.Dir(), v.name, fmt.Sprint(n)), fstest.Bytes(n), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		mustSeal(t, s, v.name)
	}
	for _, name := range []string{"v1", "v3"} {
		if _, err := s.Remove(name, Digest{}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestCrashDuringCompact: wherever it is killed, no version loses anything, and
// the next one does what is left to do.
func TestCrashDuringCompact(t *testing.T) {
	states := make(map[int]int)
	for step := 1; ; step++ {
		s := sparseStore(t)
		digest := digestOf(t, s, "v2")
		killed := crashAt(t, "compact", s.Dir(), step)
		s, err := OpenStore(s.Dir())
		if err != nil {
			t.Fatal(err)
		}
		check := func() {
			t.Helper()
			checkHealthy(t, s)
			if v2, v4 := textOf(t, s, "v2"), textOf(t, s, "v4"); v2 != "two" || v4 != "four" {
				t.Errorf("step %d: v2 says %q, v4 %q", step, v2, v4)
			}
			if got := digestOf(t, s, "v2"); got != digest {
				t.Errorf("step %d: v2 has digest %v, want %v", step, got, digest)
			}
		}
		check()
		states[len(files(t, s.packsDir()+"/*"))]++
		c, err := s.Compact(t.Context(), CompactOptions{})
		if err != nil || c.Kept != nil {
			t.Errorf("step %d: compacted again: %+v, %v", step, c, err)
		}
		check()
		again, err := s.Compact(t.Context(), CompactOptions{})
		if err != nil || again.Removed != 0 || again.Rewritten != 0 || again.Freed != 0 {
			t.Errorf("step %d: compacted once more: %+v, %v", step, again, err)
		}
		for _, name := range []string{"v2", "v4"} {
			if _, err := s.Remove(name, Digest{}); err != nil {
				t.Error(err)
			}
		}
		if left := files(t, s.packsDir()+"/*"); len(left) > 0 {
			t.Errorf("step %d: everything removed, but %v", step, left)
		}
		if !killed {
			break
		}
	}
	// Two sparse packs and one of what is small in v2 and in v4 each; with the new one
	// beside them; without those that are replaced.
	if len(states) < 3 {
		t.Errorf("the crashes were in these states only, by the number of packs: %v", states)
	}
}

// TestOpenDuringCompact: who has read an index when its packs are deleted finds
// the index that has replaced it.
func TestOpenDuringCompact(t *testing.T) {
	s := sparseStore(t)
	server, err := OpenStore(s.Dir()) // as another process, which has no packs open
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	server.step = func(step string) {
		if opened++; opened == 1 {
			if c, err := s.Compact(t.Context(), CompactOptions{}); err != nil || c.Rewritten == 0 {
				t.Errorf("Compact: %+v, %v", c, err)
			}
		}
	}
	v, err := server.Open("v4")
	if err != nil || len(v.Problems()) > 0 {
		t.Fatalf("%v, problems %v", err, v.Problems())
	}
	if opened != 2 {
		t.Errorf("the index was opened %d times, want 2", opened)
	}
	if got := textOf(t, server, "v4"); got != "four" {
		t.Errorf("v4 says %q", got)
	}
	// A pack that is gone for another reason is no reason to try for ever.
	for _, pack := range files(t, s.packsDir()+"/*") {
		if err := os.Remove(pack); err != nil {
			t.Fatal(err)
		}
	}
	fresh, err := OpenStore(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if v, err := fresh.Open("v4"); err != nil || len(v.Problems()) == 0 {
		t.Errorf("%v; want problems", err)
	}
}

// TestCompactKeepsStamps: a tree that did not change is not read again because
// packs were rewritten.
func TestCompactKeepsStamps(t *testing.T) {
	s := sparseStore(t)
	if _, err := s.Compact(t.Context(), CompactOptions{}); err != nil {
		t.Fatal(err)
	}
	src, err := source.OpenDir(filepath.Join(s.Dir(), "v4"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	c := newClock(quiet{src})
	if r := s.recall(quiet{src}, &c); r == nil || r.Version.name != "v4" {
		t.Errorf("what the last seal left is %v", r)
	}
	mustSeal(t, s, "v4")
	checkHealthy(t, s)
}

// TestLeftoversAreRemoved: they go when nobody is at work, not before.
func TestLeftoversAreRemoved(t *testing.T) {
	s := crashedStore(t)
	left := []string{filepath.Join(s.versionsDir(), ".tmp-1"), filepath.Join(s.packsDir(), ".tmp-2")}
	for _, path := range left {
		if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Others write here without the lock, now as ever.
	old, fresh := filepath.Join(s.StateDir(), ".tmp-3"), filepath.Join(s.StateDir(), ".tmp-4")
	long := time.Now().Add(-2 * time.Hour)
	if err := errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(fresh, nil, 0o600), os.Chtimes(old, long, long)); err != nil {
		t.Fatal(err)
	}
	unlock, err := s.lockFile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	there := func() int { return len(files(t, s.StateDir()+"/*/.tmp-*")) }
	if _, err := OpenStore(s.Dir()); err != nil || there() != 2 {
		t.Errorf("opened beside one at work: %d of 2 temporary files are left, %v", there(), err)
	}
	unlock()
	if _, err := OpenStore(s.Dir()); err != nil || there() != 0 {
		t.Errorf("opened alone: %d temporary files are left, %v", there(), err)
	}
	if left := files(t, s.StateDir()+"/.tmp-*"); !slices.Equal(left, []string{fresh}) {
		t.Errorf("beside the lock are left %v, want %s", left, fresh)
	}
}

// asNobody runs the child as a user without rights and returns what it said.
func asNobody(t *testing.T, do string, s *Store) (string, error) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: becomes another user")
	}
	// Directories of tests and of go test itself are closed to others.
	binary := filepath.Join(t.TempDir(), "test")
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Dir(filepath.Dir(binary)), filepath.Dir(filepath.Dir(s.Dir()))} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), crashDo+"="+do, crashStore+"="+s.Dir(), crashStep+"=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: fs.Nobody, Gid: fs.Nobody}}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestLookingNeedsNoRights: everybody can list a store, and only that: content
// is for its owner.
func TestLookingNeedsNoRights(t *testing.T) {
	s := crashedStore(t)
	if err := os.WriteFile(s.versionsDir()+"/.tmp-1", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := asNobody(t, "look", s); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOpenIsTriedAgain: a version that cannot be opened for want of something is
// not one whose files are lost.
func TestOpenIsTriedAgain(t *testing.T) {
	s := crashedStore(t)
	writeTree(t, s, "v1", "text is new, large is not", fstest.Bytes(80_000))
	mustSeal(t, s, "v1")
	crashAt(t, "starve", s.Dir(), 0)
}

// TestPacksAreClosed: new packs and their directory are for their owner only,
// and so is, from the next seal on, a directory that was open to all.
func TestPacksAreClosed(t *testing.T) {
	s := crashedStore(t)
	check := func() {
		t.Helper()
		for _, path := range append(files(t, s.packsDir()+"/*"), s.packsDir()) {
			stat, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if stat.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, stat.Mode())
			}
		}
	}
	check()
	if err := os.Chmod(s.packsDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	mustSeal(t, s, "v1")
	check()
}

// TestSealingUnreadable: a file that the user may not read is named.
func TestSealingUnreadable(t *testing.T) {
	s := crashedStore(t)
	if err := os.Chmod(s.Dir()+"/v1/text", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(files(t, s.packsDir()+"/*"), s.StateDir(), s.versionsDir(), s.packsDir(), s.StateDir()+"/lock") {
		if err := os.Chown(path, fs.Nobody, fs.Nobody); err != nil {
			t.Fatal(err)
		}
	}
	out, err := asNobody(t, "seal", s)
	if err == nil || !strings.Contains(out, "open /text: permission denied (run as root, or give rootnfsd CAP_DAC_READ_SEARCH)") {
		t.Errorf("%v\n%s", err, out)
	}
	checkHealthy(t, s)
	if got := textOf(t, s, "v1"); got != "old" {
		t.Errorf("v1 says %q", got)
	}
}

func TestCompareNames(t *testing.T) {
	names := []string{"1", "2", "10", "a", "v", "v1", "v1+x", "v1~0123456789ab", "v02", "v2", "v2.9", "v2.10", "v10", "v10a", "w"}
	for i, a := range names {
		for j, b := range names {
			if got := compareNames(a, b); got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("compareNames(%q, %q) = %d", a, b, got)
			}
		}
	}
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 999_949: "999.9 kB", 999_960: "1.0 MB", 5_242_880: "5.2 MB", 1 << 63: "9.2 EB"} {
		if got := formatBytes(n); got != want {
			t.Errorf("formatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestHashSpreads(t *testing.T) {
	const n = 100_000
	seen := make(map[uint32]bool)
	for i := range n {
		seen[hashName(uint32(i%100+1), fmt.Sprintf("file-%d", i))&(1<<20-1)] = true
	}
	// Of n balls thrown at random into 2^20 urns, 95.3 % find an empty one.
	if len(seen) < n*94/100 {
		t.Errorf("%d names have only %d hashes", n, len(seen))
	}
}
