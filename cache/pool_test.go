package cache

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// thing is what a pool lends in tests.
type thing struct {
	key    int
	closed atomic.Bool
}

type things struct {
	opened, closed atomic.Int64
}

func (s *things) pool(limit int) *Pool[int, *thing] {
	return NewPool(limit, func(key int) (*thing, error) {
		s.opened.Add(1)
		return &thing{key: key}, nil
	}, func(x *thing) {
		if x.closed.Swap(true) {
			panic("closed twice")
		}
		s.closed.Add(1)
	})
}

func (s *things) want(t *testing.T, what string, opened, closed int64) {
	t.Helper()
	if o, c := s.opened.Load(), s.closed.Load(); o != opened || c != closed {
		t.Errorf("%s: %d opened and %d closed, want %d and %d", what, o, c, opened, closed)
	}
}

func TestPoolLends(t *testing.T) {
	var s things
	p := s.pool(2)
	a, _ := p.Get(1)
	b, _ := p.Get(1)
	if a != b || a.key != 1 {
		t.Error("a key has two values")
	}
	p.Get(2)
	p.Get(3)
	s.want(t, "all in use, more than the limit", 3, 0)
	p.Put(1)
	p.Get(4)
	s.want(t, "one of two users gave it back", 4, 0)
	p.Put(1)
	p.Put(2)
	p.Put(3)
	p.Get(5)
	for p.Len() > 2 { // they are closed in the background
		runtime.Gosched()
	}
	s.want(t, "three idle, one in use and a new one", 5, 3)
	if n := p.Len(); n != 2 {
		t.Errorf("%d are open, want 2", n)
	}
}

// TestPoolGetOpen holds that what is not open is not opened, and that what is stays open no
// longer for it.
func TestPoolGetOpen(t *testing.T) {
	var s things
	p := s.pool(2)
	if x, ok := p.GetOpen(1); ok || x != nil {
		t.Errorf("%v is open before anybody asked", x)
	}
	a, _ := p.Get(1)
	p.Put(1)
	p.Sweep()
	if x, ok := p.GetOpen(1); !ok || x != a {
		t.Errorf("%v, %v; want what is open", x, ok)
	}
	p.Sweep()
	s.want(t, "in use", 1, 0)
	p.Put(1)
	p.Sweep()
	s.want(t, "not asked for since the last Sweep", 1, 1)

	p.Get(2)
	p.Drop(2)
	if _, ok := p.GetOpen(2); ok {
		t.Error("what is to be closed is lent once more")
	}
	p.Put(2)
	s.want(t, "dropped", 2, 2)
}

func TestPoolAdd(t *testing.T) {
	var s things
	p := s.pool(2)
	made := &thing{key: 1}
	if !p.Add(1, made) {
		t.Error("a thing was not taken")
	}
	if got, _ := p.Get(1); got != made {
		t.Error("another thing came back than was added")
	}
	if p.Add(1, &thing{key: 1}) {
		t.Error("a key got a second thing")
	}
	p.Put(1)
	p.Drop(1)
	s.want(t, "still in use", 0, 0)
	p.Put(1)
	s.want(t, "given back by both", 0, 1)
}

func TestPoolDrop(t *testing.T) {
	var s things
	p := s.pool(10)
	p.Drop(1)
	p.Get(1)
	p.Put(1)
	p.Drop(1)
	s.want(t, "dropped while idle", 1, 1)
	p.Get(1)
	p.Get(1)
	p.Drop(1)
	p.Put(1)
	s.want(t, "dropped while in use", 2, 1)
	p.Put(1)
	s.want(t, "given back by the last", 2, 2)
	p.Get(1)
	s.want(t, "asked for again", 3, 2)
}

func TestPoolSweep(t *testing.T) {
	var s things
	p := s.pool(10)
	p.Get(1)
	p.Put(1)
	p.Get(2)
	p.Sweep()
	s.want(t, "asked for since the last sweep", 2, 0)
	p.Sweep()
	s.want(t, "not asked for since", 2, 1)
	p.Put(2)
	p.Get(2)
	p.Put(2)
	p.Sweep()
	s.want(t, "asked for again", 2, 1)
	p.Sweep()
	s.want(t, "idle", 2, 2)
}

func TestPoolErrors(t *testing.T) {
	fail := errors.New("no")
	calls := 0
	p := NewPool(1, func(int) (int, error) { calls++; return 0, fail }, func(int) { t.Error("closed what was never opened") })
	for range 2 {
		if _, err := p.Get(1); err != fail {
			t.Error(err)
		}
	}
	if calls != 2 || p.Len() != 0 {
		t.Errorf("%d calls, %d left", calls, p.Len())
	}
}

// TestPoolClosing has things take long to close. Whoever asks for such a thing
// waits until it is closed; whoever asks for another does not.
func TestPoolClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s things
		release := make(chan struct{})
		p := NewPool(4, func(key int) (*thing, error) {
			s.opened.Add(1)
			return &thing{key: key}, nil
		}, func(*thing) {
			<-release
			s.closed.Add(1)
		})
		for key := range 4 {
			p.Get(key)
			p.Put(key)
		}
		var another, same atomic.Bool
		go func() { p.Get(4); another.Store(true) }() // 0 is closed for it
		synctest.Wait()
		if !another.Load() {
			t.Error("one thing is not opened before another is closed")
		}
		go func() { p.Get(0); same.Store(true) }()
		synctest.Wait()
		if same.Load() || s.opened.Load() != 5 {
			t.Error("a thing is opened again before it is closed")
		}
		go func() { p.Get(5) }()
		go func() { p.Get(6) }()
		synctest.Wait()
		if n := s.opened.Load(); n > 5 {
			t.Errorf("%d things are open, with a limit of 4 and none closed yet", n)
		}
		close(release)
		synctest.Wait()
		if !same.Load() {
			t.Error("what was closed is not opened again")
		}
	})
}

// TestPoolPanic has opening a thing panic while another waits for it.
func TestPoolPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := NewPool(1, func(int) (int, error) { <-release; panic("no") }, func(int) {})
		go func() {
			defer func() { recover() }()
			p.Get(1)
		}()
		synctest.Wait()
		failed := make(chan error, 1)
		go func() { _, err := p.Get(1); failed <- err }()
		synctest.Wait()
		close(release)
		if err := <-failed; err == nil {
			t.Error("no error of what was never opened")
		}
		if n := p.Len(); n != 0 {
			t.Errorf("%d things are left", n)
		}
	})
}

// TestPoolConcurrent has few things asked for, dropped and swept by many. None
// is used after it was closed, and in the end all are.
func TestPoolConcurrent(t *testing.T) {
	var s things
	p := s.pool(3)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			for n := range 500 {
				key := (i + n) % 7
				x, err := p.Get(key)
				if err != nil || x.key != key || x.closed.Load() {
					t.Errorf("got %v, %v", x, err)
				}
				switch n % 16 {
				case 3:
					p.Drop(key)
				case 7:
					p.Sweep()
				case 11:
					runtime.Gosched()
				}
				if x.closed.Load() {
					t.Error("closed while in use")
				}
				p.Put(key)
			}
		})
	}
	all.Wait()
	p.Sweep()
	p.Sweep()
	if p.Len() != 0 || s.opened.Load() != s.closed.Load() {
		t.Errorf("%d left; %d opened and %d closed", p.Len(), s.opened.Load(), s.closed.Load())
	}
}
