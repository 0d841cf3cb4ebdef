package integration

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"testing"
)

// TestKilledBetweenSteps kills a promote that has to seal first at each of the
// system calls that make something durable or visible, by strace's injection of
// a signal. Whatever it had done by then, the store holds the old state or the
// new one, whole.
func TestKilledBetweenSteps(t *testing.T) {
	require(t, "strace")
	store := newStore(t, map[string]files{"v1": treeOf(20), "v2": treeOf(20)})
	at := "--export=" + store
	cli(t, "promote", "v1", at)

	for _, call := range []string{"fsync", "renameat", "flock"} {
		kills := 0
		for killedBefore(t, call, kills+1, "promote", "v2", at) {
			kills++
			cli(t, "verify", at)
			switch got := promoted(t, store); got {
			case "v1":
			case "v2":
				cli(t, "promote", "v1", at, "--no-verify")
			default:
				t.Fatalf("killed at %s %d: %q is promoted; want v1 or v2", call, kills, got)
			}
			if slices.Contains(versionNames(t, store), "v2") {
				cli(t, "remove", "v2", at)
			}
		}
		if got := promoted(t, store); got != "v2" {
			t.Errorf("not killed: %q is promoted; want v2", got)
		}
		if kills == 0 {
			t.Errorf("it was never killed at %s: does it make nothing durable?", call)
		}
		t.Logf("killed at each of %d calls of %s", kills, call)
		cli(t, "promote", "v1", at, "--no-verify")
		cli(t, "remove", "v2", at)
	}
}

// TestGCKilledBetweenSteps does the same to a gc that removes a version and
// rewrites the pack that another one needs a part of.
func TestGCKilledBetweenSteps(t *testing.T) {
	require(t, "strace")
	few, many := treeOf(10), treeOf(50)
	maps.Copy(many, few)
	store := newStore(t, map[string]files{"few": few, "many": many})
	at := "--export=" + store
	args := []string{"gc", "--keep", "1", at}
	prepare := func() {
		cli(t, "seal", "many", at)
		cli(t, "seal", "few", at)
	}
	for _, call := range []string{"fsync", "renameat", "unlinkat", "flock"} {
		kills := 0
		prepare()
		for killedBefore(t, call, kills+1, args...) {
			kills++
			cli(t, "verify", at)
			if names := versionNames(t, store); !slices.Contains(names, "few") {
				t.Fatalf("killed at %s %d: there are %q; want few among them", call, kills, names)
			}
			cli(t, args...)
			if packs := packsOf(t, store); len(packs) != 1 {
				t.Errorf("killed at %s %d: after another gc there are %q; want one pack", call, kills, packs)
			}
			cli(t, "verify", at)
			cli(t, "remove", "few", at)
			prepare()
		}
		if kills == 0 {
			t.Errorf("it was never killed at %s: does it change nothing?", call)
		}
		t.Logf("killed at each of %d calls of %s", kills, call)
		cli(t, "verify", at)
		cli(t, "remove", "few", at)
	}
}

// killedBefore runs rootnfsd and kills it when one of its threads makes a system
// call for the nth time. It reports false if that never came to be.
func killedBefore(t *testing.T, call string, n int, args ...string) bool {
	t.Helper()
	strace := []string{"-f", "-o", "/dev/null", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), rootnfsd}
	r := finish(t, exec.Command("strace", append(strace, args...)...))
	if r.status > 0 {
		t.Fatalf("%s: exit status %d: %s", args, r.status, r.stderr)
	}
	return r.status != 0
}
