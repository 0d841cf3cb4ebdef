package peer

import (
	"sync/atomic"
	"testing"
	"time"
)

// burst is a server that has much memory for one look alone.
type burst struct{ looks atomic.Int32 }

func (b *burst) Resident() uint64 {
	if b.looks.Add(1) == 2 {
		return 1000
	}
	return 10
}

func TestWatch(t *testing.T) {
	var b burst
	highest := Watch(&b)
	for b.looks.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	if most := highest(); most != 1000 {
		t.Errorf("the most was %d; want the 1000 that it had in between", most)
	}
}
