package exports

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// versionsOf lists what nodes run by what is on disk.
func versionsOf(t *testing.T, dir string) string {
	t.Helper()
	nodes, err := OpenState(dir).Nodes()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range nodes {
		for _, u := range n.Uses {
			list = append(list, fmt.Sprintf("%s %s %d", n.Addr, u.Version, u.Mounted.Unix()))
		}
	}
	return fmt.Sprint(list)
}

func line(addr, version string, mounted int64) string {
	u := &use{ref: ref(version), tally: new(tally)}
	u.mounted.Store(mounted)
	return string(lineOf(netip.MustParseAddr(addr), u))
}

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, journalFile), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when, want string) {
		t.Helper()
		if got := versionsOf(t, dir); got != want {
			t.Errorf("%s: %s; want %s", when, got, want)
		}
	}
	if err := replaceJSON(filepath.Join(dir, nodesFile), nodesOnDisk{nodesFormat, []Node{{Addr: netip.MustParseAddr("10.0.0.1"), Uses: []Use{{Ref: ref("v1"), Mounted: time.Unix(100, 0)}}}}}); err != nil {
		t.Fatal(err)
	}
	want("without one", "[10.0.0.1 v1 100]")
	write(line("10.0.0.1", "v1", 90) + line("10.0.0.2", "v1", 200) + line("10.0.0.1", "v2", 300) + line("10.0.0.2", "v1", 400))
	want("with boots", "[10.0.0.1 v1 100 10.0.0.1 v2 300 10.0.0.2 v1 400]")
	torn := line("10.0.0.2", "v1", 200)
	write(torn[:len(torn)/2])
	want("with half a line", "[10.0.0.1 v1 100]")
	j := journal{dir: dir}
	if err := j.add([]byte(line("10.0.0.3", "v1", 500))); err != nil {
		t.Fatal(err)
	}
	want("and a boot after that", "[10.0.0.1 v1 100 10.0.0.3 v1 500]")
	if err := j.replacing(func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	want("when all is saved", "[10.0.0.1 v1 100]")
	if err := j.add([]byte(line("10.0.0.4", "v1", 600))); err != nil {
		t.Fatal(err)
	}
	want("and a boot after that, too", "[10.0.0.1 v1 100 10.0.0.4 v1 600]")
	j.file.WriteString(torn[:9]) // a write that failed half way
	j.failed = os.ErrClosed
	if err := j.add([]byte(line("10.0.0.6", "v1", 650))); err != nil {
		t.Fatal(err)
	}
	want("after a write that failed", "[10.0.0.1 v1 100 10.0.0.4 v1 600 10.0.0.6 v1 650]")
	j.size = mostJournal
	if err := j.add([]byte(line("10.0.0.5", "v1", 700))); err == nil {
		t.Error("it grows without bound")
	}
}

// TestJournalTogether has many nodes boot at once, while the record is replaced.
func TestJournalTogether(t *testing.T) {
	j := journal{dir: t.TempDir()}
	var adding sync.WaitGroup
	const nodes = 200
	for i := range nodes {
		adding.Go(func() {
			if err := j.add([]byte(line(fmt.Sprintf("10.0.0.%d", i), "v1", 100))); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	if saved, err := OpenState(j.dir).Nodes(); err != nil || len(saved) != nodes {
		t.Errorf("%d nodes, %v; want %d", len(saved), err, nodes)
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(line("10.0.0.1", "v1", 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		once := replayFrom(bytes.NewReader(b), nil)
		again := replayFrom(bytes.NewReader(b), replayFrom(bytes.NewReader(b), nil))
		if len(once) != len(again) {
			t.Errorf("%d nodes, and %d when it is read twice", len(once), len(again))
		}
	})
}
