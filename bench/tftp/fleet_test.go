package tftp

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// TestFetch fetches files of all sorts of sizes, by several clients at once.
func TestFetch(t *testing.T) {
	const clients = 3
	for name, c := range map[string]struct {
		size int
		Options
	}{
		"an empty file":             {0, Options{1024, 1}},
		"less than a block":         {1, Options{1024, 1}},
		"a block":                   {1024, Options{1024, 1}},
		"blocks and a bit":          {10*1468 + 7, Options{1468, 1}},
		"numbers that begin anew":   {(1<<16 + 3) * 8, Options{8, 1}},
		"a window":                  {100_000, Options{1468, 16}},
		"windows, and no more":      {32 * 1024, Options{1024, 16}},
		"less than a window":        {5000, Options{1024, 16}},
		"windows with numbers anew": {(1<<16+3)*8 + 1, Options{8, 64}},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{content: random(c.size)}
			f, err := newFleet(s.serve(t), s.content, c.Options, clients)
			if err != nil {
				t.Fatal(err)
			}
			defer f.close()
			r, failed, err := f.fetch(t.Context(), "file", time.Minute)
			if failed != nil || err != nil || r.Errors != 0 {
				t.Fatalf("%d errors: %v, %v", r.Errors, failed, err)
			}
			blocks := uint64(clients * (c.size/c.BlockSize + 1))
			if r.Bytes != uint64(clients*c.size) || r.Calls != blocks || r.Resent != 0 {
				t.Errorf("%d bytes in %d blocks, %d sent again; want %d in %d", r.Bytes, r.Calls, r.Resent, clients*c.size, blocks)
			}
			if r.Wall <= 0 || r.NodeP50 <= 0 || r.NodeP50 > r.NodeMax || r.NodeMax > r.Wall || r.P50 <= 0 || r.P50 > r.Max {
				t.Errorf("these cannot be times: %+v", r)
			}
			if c.size > 0 && (r.LeastShare < 0 || r.LeastShare > 1) {
				t.Errorf("the least share is %v", r.LeastShare)
			}
		})
	}
}

// TestLoss has datagrams get lost, which costs time and nothing else.
func TestLoss(t *testing.T) {
	for name, c := range map[string]struct {
		Options
		lost int // this one of each transfer
	}{
		"the OACK":                 {Options{1024, 1}, 0},
		"a block":                  {Options{1024, 1}, 2},
		"the last block":           {Options{1024, 1}, 10},
		"the first of a window":    {Options{1024, 4}, 5},
		"the middle of a window":   {Options{1024, 4}, 6},
		"the last of a window":     {Options{1024, 4}, 8},
		"the last block of all, w": {Options{1024, 4}, 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &server{content: random(9*1024 + 1), lose: func(n int) bool { return n == c.lost }}
			f, err := newFleet(s.serve(t), s.content, c.Options, 2)
			if err != nil {
				t.Fatal(err)
			}
			defer f.close()
			r, failed, err := f.fetch(t.Context(), "file", time.Minute)
			if failed != nil || err != nil || r.Bytes != 2*9*1024+2 {
				t.Fatalf("%d bytes: %v, %v", r.Bytes, failed, err)
			}
			if r.Resent < 2 {
				t.Errorf("%d datagrams were sent again; want one of each client", r.Resent)
			}
		})
	}
}

// TestFailures has a server do what it must not, and wants that said.
func TestFailures(t *testing.T) {
	grant := func(name, value string) func(map[string]string) {
		return func(options map[string]string) { options[name] = value }
	}
	for name, c := range map[string]struct {
		*server
		file string
		Options
		want string
	}{
		"no such file":         {&server{}, "other", Options{1024, 1}, "File not found"},
		"another size":         {&server{grant: grant("tsize", "7")}, "file", Options{1024, 1}, "7 bytes"},
		"smaller blocks":       {&server{grant: grant("blksize", "512")}, "file", Options{1024, 1}, "blocks of 512 bytes where 1024"},
		"larger windows":       {&server{grant: grant("windowsize", "9")}, "file", Options{1024, 4}, "windows of 9"},
		"an option not wanted": {&server{grant: grant("timeout", "9")}, "file", Options{1024, 1}, "timeout"},
		"no number":            {&server{grant: grant("tsize", "x")}, "file", Options{1024, 1}, "no sense"},
		"other content":        {&server{spoil: func(p []byte) { p[headSize] ^= 1 }}, "file", Options{1024, 1}, "from byte 0 on"},
	} {
		t.Run(name, func(t *testing.T) {
			c.content = random(5000)
			f, err := newFleet(c.serve(t), c.content, c.Options, 2)
			if err != nil {
				t.Fatal(err)
			}
			defer f.close()
			r, failed, err := f.fetch(t.Context(), c.file, time.Minute)
			if err != nil || r.Errors != 2 || failed == nil || !strings.Contains(failed.Error(), c.want) {
				t.Errorf("%d errors, %v; want 2, of which the first says %q: %v", r.Errors, failed, c.want, err)
			}
		})
	}
}

// TestNoWindow tells servers that grant no windows from those that fail.
func TestNoWindow(t *testing.T) {
	s := &server{content: random(5000), grant: func(options map[string]string) { delete(options, "windowsize") }}
	f, err := newFleet(s.serve(t), s.content, Options{1024, 8}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if _, failed, err := f.fetch(t.Context(), "file", time.Minute); !errors.Is(failed, errNoWindow) || err != nil {
		t.Errorf("%v, %v; want %v", failed, err, errNoWindow)
	}
}

// TestLimit gives up on a server that never ends.
func TestLimit(t *testing.T) {
	s := &server{content: random(50_000), lose: func(n int) bool { return n > 3 && n%2 == 0 }}
	f, err := newFleet(s.serve(t), s.content, Options{512, 1}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	r, failed, err := f.fetch(t.Context(), "file", time.Millisecond)
	if err != nil || failed == nil || r.Errors != 1 {
		t.Errorf("%d errors, %v, %v; want the limit to be told", r.Errors, failed, err)
	}
}

// TestShares holds one client up until another one has all of the file.
func TestShares(t *testing.T) {
	const blocks = 100
	halfway, first := make(chan struct{}), make(chan struct{})
	s := &server{content: random(blocks * 1024)}
	slow := address(0, netip.MustParseAddr("127.0.0.1"))
	s.hold = func(client netip.AddrPort, block int) {
		switch {
		case block != blocks/2+1:
		case client.Addr() == slow:
			close(halfway)
			<-first
		default:
			<-halfway
		}
	}
	s.ended = func(client netip.AddrPort) {
		if client.Addr() != slow {
			close(first)
		}
	}
	f, err := newFleet(s.serve(t), s.content, Options{1024, 1}, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	r, failed, err := f.fetch(t.Context(), "file", time.Minute)
	if failed != nil || err != nil {
		t.Fatal(failed, err)
	}
	if want := 50.0 / 75; r.LeastShare != want {
		t.Errorf("the least share is %v; want %v", r.LeastShare, want)
	}
}

func TestLeastShare(t *testing.T) {
	for _, c := range []struct {
		early []int
		want  float64
	}{
		{nil, 0},
		{[]int{5}, 0},
		{[]int{0, 0}, 0},
		{[]int{100, 100}, 1},
		{[]int{100, 50, 75, 75}, 50.0 / 75},
		{[]int{100, 0}, noShare},
	} {
		if got := leastShare(c.early); got != c.want {
			t.Errorf("%v: the least share is %v; want %v", c.early, got, c.want)
		}
	}
}
