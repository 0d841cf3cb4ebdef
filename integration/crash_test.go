package integration

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestKilled kills seal and promote at random moments. Whatever they had done
// by then, the store holds the old state or the new one, whole.
func TestKilled(t *testing.T) {
	const kills = 15
	store := newStore(t, map[string]files{"v1": treeOf(1000), "v2": treeOf(1000)})
	at := "--export=" + store
	sealTime := timed(func() { cli(t, "seal", "v1", at) })
	promoteTime := timed(func() { cli(t, "promote", "v1", at) })

	t.Run("seal", func(t *testing.T) {
		complete := 0
		for range kills {
			runAndKill(t, sealTime, "seal", "v2", at)
			cli(t, "verify", at)
			if slices.Contains(versionNames(t, store), "v2") {
				complete++
				cli(t, "remove", "v2", at)
			}
		}
		t.Logf("%d of %d were complete", complete, kills)
		cli(t, "seal", "v2", at)
		cli(t, "verify", at)
		if left, _ := filepath.Glob(store + "/.rootnfsd/*/*tmp*"); left != nil {
			t.Errorf("a seal after the crashes leaves %q", left)
		}
	})
	t.Run("promote", func(t *testing.T) {
		complete := 0
		for range kills {
			cli(t, "promote", "v1", at, "--no-verify")
			runAndKill(t, promoteTime, "promote", "v2", at)
			switch got := promoted(t, store); got {
			case "v1":
			case "v2":
				complete++
			default:
				t.Fatalf("promoted is %q; want v1 or v2", got)
			}
		}
		t.Logf("%d of %d were complete", complete, kills)
		cli(t, "promote", "v2", at)
	})
}

// runAndKill starts rootnfsd and kills it at a moment of the time that it usually takes.
func runAndKill(t *testing.T, usual time.Duration, args ...string) {
	t.Helper()
	cmd := exec.Command(rootnfsd, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(rand.N(usual * 5 / 4))
	cmd.Process.Kill()
	cmd.Wait()
}

// promoted is the version that is promoted.
func promoted(t *testing.T, store string) string {
	t.Helper()
	for _, v := range cliJSON[[]versionRow](t, "versions", "--export", store) {
		if v.Promoted {
			return v.Name
		}
	}
	return ""
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// treeOf is a tree of n files, none of which any other tree has.
func treeOf(n int) files {
	tree := files{}
	for i := range n {
		tree[fmt.Sprintf("dir%d/file%d", i%10, i)] = randomBytes(8 << 10)
	}
	return tree
}

// randomBytes is n random bytes, which no store has yet.
func randomBytes(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return string(b)
}
