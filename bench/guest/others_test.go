package guest

import (
	"testing"
	"time"
)

func TestBusy(t *testing.T) {
	const stat = "cpu  100 20 30 40000 5000 6 7 900 80 9\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n"
	got, err := busy(stat)
	if want := 1630 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, stat := range []string{"", "cpu", "cpu0 1 2 3 4 5 6 7 8 9 10\n", "cpu 1 2 3 4 5 6\n", "cpu 1 2 3 4 5 x 7 8\n"} {
		if got, err := busy(stat); err == nil {
			t.Errorf("%q: got %v; want an error", stat, got)
		}
	}
}

// TestOthers looks that this machine tells.
func TestOthers(t *testing.T) {
	if (Others{}).CPU() <= 0 {
		t.Error("the processors were never busy")
	}
}
