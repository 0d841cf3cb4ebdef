package cache_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/rootnfsd/rootnfsd/cache"
)

// TestManyWaitForOne lets all but the first ask while the value is being made.
func TestManyWaitForOne(t *testing.T) {
	for _, want := range []error{nil, errors.New("disk on fire")} {
		synctest.Test(t, func(t *testing.T) {
			var f cache.Flights[int, string]
			var calls atomic.Int32
			release := make(chan struct{})
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					got, err := f.Get(7, func() (string, error) {
						calls.Add(1)
						<-release
						return "once", want
					})
					if got != "once" || err != want {
						t.Errorf("Get: %q, %v; want %v", got, err, want)
					}
				})
			}
			synctest.Wait() // until all of them wait
			if got, err := f.Get(8, func() (string, error) { return "other", nil }); got != "other" || err != nil {
				t.Errorf("another key: %q, %v", got, err)
			}
			close(release)
			wg.Wait()
			if n := calls.Load(); n != 1 {
				t.Errorf("made %d times", n)
			}
		})
	}
}

func TestNothingIsKept(t *testing.T) {
	var f cache.Flights[string, int]
	for want := range 3 {
		if got, err := f.Get("k", func() (int, error) { return want, nil }); got != want || err != nil {
			t.Errorf("Get: %d, %v; want %d", got, err, want)
		}
	}
}

// TestPanicStrandsNobody makes the one that others wait for panic.
func TestPanicStrandsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f cache.Flights[int, string]
		release := make(chan struct{})
		go func() {
			defer func() { recover() }()
			f.Get(1, func() (string, error) { <-release; panic("oops") })
		}()
		synctest.Wait()
		waited := make(chan error)
		go func() {
			_, err := f.Get(1, func() (string, error) { return "", nil })
			waited <- err
		}()
		synctest.Wait()
		close(release)
		if err := <-waited; err == nil {
			t.Error("who waited got no error")
		}
		if got, err := f.Get(1, func() (string, error) { return "again", nil }); got != "again" || err != nil {
			t.Errorf("afterwards: %q, %v", got, err)
		}
	})
}
