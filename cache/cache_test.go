package cache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rootnfsd/rootnfsd/cache"
)

func value(n int) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) { return make([]byte, n), nil }
}

func never(t *testing.T) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		t.Error("value made a second time")
		return nil, nil
	}
}

func TestValueIsMadeOnce(t *testing.T) {
	c := cache.New[string](1 << 20)
	for range 2 {
		got, err := c.Get(t.Context(), "k", value(10))
		if len(got) != 10 || err != nil {
			t.Fatalf("Get: %d bytes, %v", len(got), err)
		}
	}
	if _, err := c.Get(t.Context(), "k", never(t)); err != nil {
		t.Fatal(err)
	}
}

// TestManyWaitForOne lets all callers but the first arrive while the value is
// being made: the call of make blocks until they are counted.
func TestManyWaitForOne(t *testing.T) {
	const callers = 100
	c := cache.New[int](1 << 20)
	var calls atomic.Int32
	started, release := make(chan struct{}), make(chan struct{})
	fill := func(context.Context) ([]byte, error) {
		if calls.Add(1) == 1 {
			close(started)
		}
		<-release
		return []byte("once"), nil
	}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			if got, err := c.Get(t.Context(), 7, fill); string(got) != "once" || err != nil {
				t.Errorf("Get: %q, %v", got, err)
			}
		})
	}
	<-started
	if _, err := c.Get(t.Context(), 8, value(1)); err != nil {
		t.Errorf("another key waits: %v", err)
	}
	close(release)
	wg.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("made %d times", n)
	}
}

func TestErrorIsNotKept(t *testing.T) {
	c := cache.New[int](1 << 20)
	broken := errors.New("disk on fire")
	if _, err := c.Get(t.Context(), 1, func(context.Context) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Fatalf("Get: %v", err)
	}
	if got, err := c.Get(t.Context(), 1, value(3)); len(got) != 3 || err != nil {
		t.Fatalf("Get after an error: %d bytes, %v", len(got), err)
	}
}

func TestWhoLeavesDoesNotStopTheOthers(t *testing.T) {
	c := cache.New[int](1 << 20)
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	started := make(chan struct{})
	go func() {
		_, err := c.Get(ctx, 1, func(ctx context.Context) ([]byte, error) {
			close(started)
			<-release
			return []byte("done"), ctx.Err()
		})
		first <- err
	}()
	<-started
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Fatalf("the one who left got %v", err)
	}
	second := make(chan error)
	go func() {
		got, err := c.Get(t.Context(), 1, never(t))
		if string(got) != "done" {
			err = fmt.Errorf("got %q, %w", got, err)
		}
		second <- err
	}()
	close(release)
	if err := <-second; err != nil {
		t.Fatal(err)
	}
}

func TestBytesAreBounded(t *testing.T) {
	const limit = 10_000
	c := cache.New[int](limit)
	for i := range 1000 {
		if _, err := c.Get(t.Context(), i, value(1000)); err != nil {
			t.Fatal(err)
		}
		if c.Used() > limit {
			t.Fatalf("%d bytes in use, limit %d", c.Used(), limit)
		}
	}
	if c.Used() < limit/2 {
		t.Errorf("only %d of %d bytes in use", c.Used(), limit)
	}
	if _, err := c.Get(t.Context(), 999, never(t)); err != nil {
		t.Error(err)
	}
	made := false
	_, err := c.Get(t.Context(), 0, func(context.Context) ([]byte, error) { made = true; return nil, nil })
	if !made || err != nil {
		t.Errorf("the oldest value was not evicted: made %v, %v", made, err)
	}
}

func TestValueLargerThanTheCache(t *testing.T) {
	c := cache.New[int](1000)
	got, err := c.Get(t.Context(), 1, value(5000))
	if len(got) != 5000 || err != nil || c.Used() != 0 {
		t.Errorf("Get: %d bytes, %v; %d in use", len(got), err, c.Used())
	}
}

func TestConcurrentUse(t *testing.T) {
	c := cache.New[int](5000)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				key := (i*7 + g) % 40
				got, err := c.Get(t.Context(), key, value(key*10))
				if len(got) != key*10 || err != nil {
					t.Errorf("Get of %d: %d bytes, %v", key, len(got), err)
				}
			}
		})
	}
	wg.Wait()
}
