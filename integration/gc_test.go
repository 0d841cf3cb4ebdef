package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// gcOutput is what gc --json prints.
type gcOutput struct {
	Versions []struct {
		Name    string
		Removed bool
		HeldBy  []string `json:"held_by"`
		Kept    string
		Frees   uint64 `json:"frees_bytes"`
	}
	Deleted   int    `json:"packs_deleted"`
	Rewritten int    `json:"packs_rewritten"`
	Freed     uint64 `json:"freed_bytes"`
	Garbage   uint64 `json:"garbage_bytes"`
}

// fates writes what becomes of each version.
func (out *gcOutput) fates() string {
	var all []string
	for _, v := range out.Versions {
		fate := "removed"
		if !v.Removed {
			fate = strings.Join(v.HeldBy, "+")
			if fate == "" {
				fate = v.Kept
			}
		}
		all = append(all, v.Name+": "+fate)
	}
	return strings.Join(all, ", ")
}

// TestGC removes what is old and nobody needs, and rewrites what is half needed.
func TestGC(t *testing.T) {
	const part = 100_000
	trees := map[string]files{}
	common := randomBytes(part)
	for i := range 5 {
		trees[fmt.Sprint("v", i+1)] = files{"common": common, "own": randomBytes(part), "large": randomBytes(10 * part)}
	}
	maps.Copy(trees["v2"], files{"large": trees["v1"]["large"][:part] + "and more"})
	store := newStore(t, trees)
	at := "--export=" + store
	for i := range 5 {
		cli(t, "seal", fmt.Sprint("v", i+1), at)
	}
	cli(t, "promote", "v2", at)
	cli(t, "promote", "v3", at)

	const want = "v1: removed, v2: a rollback returns to it, v3: promoted, v4: removed, v5: one of the newest 1"
	dry := cliJSON[gcOutput](t, "gc", "--keep", "1", "--dry-run", at)
	if got := dry.fates(); got != want {
		t.Errorf("gc --dry-run: %s; want %s", got, want)
	}
	if got := versionNames(t, store); len(got) != 5 || len(packsOf(t, store)) != 5 {
		t.Fatalf("after gc --dry-run there are %q", got)
	}
	before := sizeOfPacks(t, store)
	got := cliJSON[gcOutput](t, "gc", "--keep", "1", at)
	if fates := got.fates(); fates != want {
		t.Errorf("gc: %s; want %s", fates, want)
	}
	if names := versionNames(t, store); !slices.Equal(names, []string{"v2", "v3", "v5"}) {
		t.Errorf("after gc there are %q", names)
	}
	// Of what v1 has added, all need the common file and v2 the first chunk of the large one.
	if got.Deleted != 1 || got.Rewritten != 1 || got.Garbage != 0 || got.Freed != before-sizeOfPacks(t, store) || got.Freed < 20*part {
		t.Errorf("gc: %+v; the packs became %d bytes less", got, before-sizeOfPacks(t, store))
	}
	if v1, v4 := got.Versions[0].Frees, got.Versions[3].Frees; v1 != 11*part-64<<10 || v4 != 11*part {
		t.Errorf("v1 frees %d bytes and v4 %d", v1, v4)
	}
	if diff := int64(dry.Freed) - int64(got.Freed); diff < -10_000 || diff > 10_000 {
		t.Errorf("the dry run expected to free %d bytes, and %d were", dry.Freed, got.Freed)
	}
	cli(t, "verify", at)
	if again := cliJSON[gcOutput](t, "gc", at); again.Freed != 0 || again.Deleted+again.Rewritten != 0 || again.fates() != "v2: a rollback returns to it, v3: promoted, v5: no --keep was given" {
		t.Errorf("gc once more: %+v", again)
	}
	if young := cliJSON[gcOutput](t, "gc", "--keep-days", "1", at); !strings.Contains(young.fates(), "v5: sealed after ") {
		t.Errorf("gc --keep-days: %s", young.fates())
	}
	if text := cli(t, "gc", "--keep=0", "--dry-run", at); !strings.Contains(text, "would be removed") || !strings.Contains(text, "kept: promoted") {
		t.Errorf("gc --dry-run prints\n%s", text)
	}
	cli(t, "rollback", at)
	if got := promoted(t, store); got != "v2" {
		t.Errorf("after gc and a rollback %s is promoted; want v2", got)
	}
	expectFailure(t, []string{"gc", "--keep=-1", at}, "-1")
	expectFailure(t, []string{"gc", "v1", at}, "v1")
}

// TestGCBesideDamage: nothing is thrown away that a version may need which cannot
// be read.
func TestGCBesideDamage(t *testing.T) {
	store := newStore(t, map[string]files{"v1": smallTree, "v2": {"a": randomBytes(1000)}, "v3": {"b": randomBytes(1000)}})
	at := "--export=" + store
	for _, v := range []string{"v1", "v2", "v3"} {
		cli(t, "seal", v, at)
	}
	flip(t, filepath.Join(store, ".rootnfsd/versions/v3.index"), 300)
	expectFailure(t, []string{"gc", "--keep", "1", at}, "version v3", "damaged", "no pack is touched")
	if got := versionNames(t, store); !slices.Equal(got, []string{"v3"}) || len(packsOf(t, store)) != 3 {
		t.Errorf("there are %q and %d packs; want v3 alone and all packs", got, len(packsOf(t, store)))
	}
}

func packsOf(t *testing.T, store string) []string {
	t.Helper()
	packs, err := filepath.Glob(store + "/.rootnfsd/packs/*")
	if err != nil {
		t.Fatal(err)
	}
	return packs
}

func sizeOfPacks(t *testing.T, store string) (sum uint64) {
	t.Helper()
	for _, path := range packsOf(t, store) {
		stat, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		sum += uint64(stat.Size())
	}
	return sum
}

// TestGCUnderServer rewrites packs while nodes read from them, by handles that
// they have and by new mounts.
func TestGCUnderServer(t *testing.T) {
	require(t, "nfs-cat")
	kept := randomBytes(600_000)
	store := newStore(t, map[string]files{
		"v1": {"kept": kept, "garbage": randomBytes(2_000_000)},
		"v2": {"kept": kept},
		"v3": {"kept": kept, "new": "new"},
	})
	at := "--export=" + store
	for _, v := range []string{"v1", "v2", "v3"} {
		cli(t, "seal", v, at)
	}
	cli(t, "promote", "v3", at)
	net := newNet(t)
	daemon := serve(t, net, at)
	read := func(version string) {
		out, err := net.Command("nfs-cat", "nfs://127.0.0.1/images"+version+"/kept?version=3").Output()
		if err != nil || string(out) != kept {
			t.Errorf("reading %q gives %d bytes, %v; want %d", version, len(out), err, len(kept))
		}
	}
	read("@v2")
	for known := false; !known; { // what is new is saved within a second
		time.Sleep(100 * time.Millisecond)
		known = strings.Contains(cli(t, "nodes", "--json", at), `"v2"`)
	}

	done := make(chan struct{})
	var readers sync.WaitGroup
	for _, version := range []string{"", "@v2"} {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					read(version)
				}
			}
		})
	}
	got := cliJSON[gcOutput](t, "gc", "--keep", "0", at)
	read("")
	read("@v2")
	close(done)
	readers.Wait()
	if fates := got.fates(); !strings.HasPrefix(fates, "v1: removed, v2: runs on 127.0.0.1") || got.Rewritten != 1 {
		t.Errorf("gc under a running server: %s, %d packs rewritten", fates, got.Rewritten)
	}
	if log := daemon.Log(); strings.Contains(log, "cannot") || strings.Contains(log, "space is not freed") {
		t.Errorf("the server complains:\n%s", log)
	}
	if _, err := os.Stat(filepath.Join(store, ".rootnfsd/versions/v1.index")); err == nil {
		t.Error("v1 is still there")
	}
	cli(t, "verify", at)
}
