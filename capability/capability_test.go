package capability

import (
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/capability/capabilitytest"
)

// chroot is one that the root of most containers has, too.
const chroot = unix.CAP_SYS_CHROOT

// effective returns what threads act with.
func effective(t *testing.T) map[string]bool {
	t.Helper()
	return capabilitytest.Threads(t, "CapEff:")
}

// TestLayDown lays down what all threads have, and takes it up on one of them.
func TestLayDown(t *testing.T) {
	before, err := OfThread()
	if err != nil {
		t.Fatal(err)
	}
	if !before.Has(chroot) {
		t.Skip("needs CAP_SYS_CHROOT, as root has it")
	}
	var wait, started sync.WaitGroup // several threads
	release := make(chan struct{})
	for range 4 {
		wait.Add(1)
		started.Add(1)
		go func() {
			defer wait.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			started.Done()
			<-release
		}()
	}
	started.Wait()
	defer wait.Wait()
	defer close(release)

	if err := LayDown(chroot); err != nil {
		if len(effective(t)) != 1 {
			t.Errorf("it failed, and threads differ: %v", effective(t))
		}
		t.Logf("as with cgo: %v", err)
		return
	}
	want := before.Without(1 << chroot)
	if now, err := OfThread(); err != nil || now != want || now.Has(chroot) {
		t.Errorf("has %x, %v; want %x", now, err, want)
	}
	if now := effective(t); len(now) != 1 {
		t.Errorf("threads differ: %v", now)
	}
	if err := LayDown(chroot); err != nil {
		t.Errorf("what is not there cannot be laid down: %v", err)
	}
	ran := false
	Acting(chroot, func() {
		ran = true
		if now, err := OfThread(); err != nil || now != before {
			t.Errorf("acts with %x, %v; want %x", now, err, before)
		}
	})
	if now := effective(t); !ran || len(now) != 1 {
		t.Errorf("it ran: %v; threads differ: %v", ran, now)
	}
}

func TestSet(t *testing.T) {
	s := Set{{Effective: 1 << 3, Permitted: 1<<3 | 1<<5}, {Effective: 1 << 1, Permitted: 1 << 1}}
	for c, want := range map[uint]bool{3: true, 5: false, 33: true, 34: false} {
		if s.Has(c) != want {
			t.Errorf("has %d: %v", c, !want)
		}
	}
	if with := s.With(5); !with.Has(5) || !with.Has(3) {
		t.Errorf("with 5 it is %x", with)
	}
	if with := s.With(6); with != s {
		t.Error("with what is not permitted it is another")
	}
	if without := s.Without(1<<33 | 1<<4); without.Has(33) || !without.Has(3) || without[1].Permitted != 1<<1 {
		t.Errorf("without 33 it is %x", without)
	}
}
