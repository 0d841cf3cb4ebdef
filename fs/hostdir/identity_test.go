package hostdir

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/capability"
	"github.com/rootnfsd/rootnfsd/capability/capabilitytest"
	"github.com/rootnfsd/rootnfsd/fs"
)

// TestThreadsGiveUpIdentities has many callers at once, and looks at all
// threads of the process afterwards.
func TestThreadsGiveUpIdentities(t *testing.T) {
	needRoot(t)
	h := newHost(t, Options{Threads: 8})
	mode := os.Getenv("HOSTDIR_TEST")
	if want := !h.actor.self.caps.Has(unix.CAP_SYS_RESOURCE) && mode != "securebits"; want != (h.actor.users == nil) {
		t.Fatalf("as %q, setfsuid drops all that must be dropped: %v", mode, !want)
	}
	callMany(t, h)
}

// TestActsForRoot: root, where it is not squashed, has what the server may, and leaves it
// what it had.
func TestActsForRoot(t *testing.T) {
	h := newHost(t, Options{Threads: 8})
	if !h.actor.able {
		t.Skip("needs CAP_SETUID and CAP_SETGID")
	}
	before := threadIdentities(t)
	want := h.actor.self.caps.With(unix.CAP_SYS_RESOURCE)
	for range 100 {
		var caps capability.Set
		err := h.actor.as(root, func() (err error) {
			caps, err = capability.OfThread()
			return err
		})
		if err != nil || caps != want {
			t.Fatalf("root acts with %x, %v; want %x", caps, err, want)
		}
	}
	if after := threadIdentities(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("threads were\n%v\nand are\n%v", before, after)
	}
}

func callMany(t *testing.T, h *Host) {
	before := threadIdentities(t)
	if len(before) != 1 {
		t.Fatalf("threads differ before the test: %v", before)
	}
	var calls sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 64 {
		calls.Go(func() {
			c := &fs.Cred{UID: uint32(1000 + i), GID: uint32(2000 + i), Groups: []uint32{uint32(3000 + i), 4000}}
			for range 20 {
				err := h.actor.as(c, func() error {
					runtime.Gosched()
					return isIdentity(c)
				})
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	calls.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	if after := threadIdentities(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("threads were\n%v\nand are\n%v", before, after)
	}
}

// isIdentity fails unless the thread is c's, without privileges.
func isIdentity(c *fs.Cred) error {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{
		fmt.Sprintf("Uid:\t0\t0\t0\t%d\n", c.UID),
		fmt.Sprintf("Gid:\t0\t0\t0\t%d\n", c.GID),
		fmt.Sprintf("Groups:\t%d %d \n", 4000-1000+c.UID-1000, 4000),
	} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("want %q in %s", want, status)
		}
	}
	caps, err := capability.OfThread()
	if err != nil {
		return err
	}
	if caps != caps.Without(overrides) {
		return fmt.Errorf("capabilities %x", caps)
	}
	return nil
}

// threadIdentities returns the identities that threads have.
func threadIdentities(t *testing.T) map[string]bool {
	t.Helper()
	return capabilitytest.Threads(t, "Uid:", "Gid:", "Groups:", "CapEff:")
}

// TestShareOfThreads has one tree do all it can at once, and another go on.
func TestShareOfThreads(t *testing.T) {
	needRoot(t)
	synctest.Test(t, func(t *testing.T) {
		a, err := newActor(8, false)
		if err != nil {
			t.Fatal(err)
		}
		h := &Host{actor: a}
		busy, other := h.newTree(-1), h.newTree(-1)
		release := make(chan struct{})
		for range 20 {
			go busy.as(alice, func() error { <-release; return nil })
			go busy.asUser(alice, func() error { <-release; return nil })
		}
		synctest.Wait()
		served := false
		go func() { other.as(bob, func() error { served = true; return nil }) }()
		synctest.Wait()
		if !served {
			t.Error("one tree has all threads")
		}
		close(release)
	})
}

// TestPanicGivesUpIdentity panics as a caller.
func TestPanicGivesUpIdentity(t *testing.T) {
	needRoot(t)
	h := newHost(t, Options{Threads: 1})
	before := threadIdentities(t)
	for range 3 { // the slot must be free again too
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			h.actor.as(alice, func() error { panic("test") })
		}()
	}
	if after := threadIdentities(t); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("threads were\n%v\nand are\n%v", before, after)
	}
}
