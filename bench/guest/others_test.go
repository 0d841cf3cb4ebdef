package guest

import (
	"testing"
	"time"
)

func TestIdleness(t *testing.T) {
	const stat = "cpu  1 2 3 4 5 6 7 8 9 10\n" +
		"cpu0 100 20 30 40000 5000 6 7 900 80 9\ncpu1 100 20 30 4 50 6 7 600 80 9\nintr 1\n"
	cpus, idle, err := idleness(stat)
	if want := 465540 * time.Millisecond; err != nil || cpus != 2 || idle != want {
		t.Errorf("got %d processors, %v, %v; want 2, %v", cpus, idle, err, want)
	}
	for _, stat := range []string{"", "cpu 1 2 3 4 5 6 7 8\n", "cpu0\n", "cpu0 1 2 3 4 5 6 7\n", "cpu0 1 2 3 x 5 6 7 8\n"} {
		if cpus, idle, err := idleness(stat); err == nil {
			t.Errorf("%q: got %d processors, %v; want an error", stat, cpus, idle)
		}
	}
}

// TestOthers looks that this machine tells.
func TestOthers(t *testing.T) {
	if (Others{}).CPU() <= 0 {
		t.Error("the processors were never busy")
	}
}
