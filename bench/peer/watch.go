package peer

import (
	"sync"
	"time"
)

// watchEvery is how often Watch looks.
const watchEvery = 50 * time.Millisecond

// Watch looks at the memory of a server now and then, until the most that it saw
// is asked for, once.
func Watch(m interface{ Resident() uint64 }) (highest func() uint64) {
	return WatchEvery(m, watchEvery)
}

// WatchEvery is Watch for a server that takes long to look at, as a Family of many: it
// looks less often.
func WatchEvery(m interface{ Resident() uint64 }, every time.Duration) (highest func() uint64) {
	done := make(chan struct{})
	most := m.Resident()
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				most = max(most, m.Resident())
			}
		}
	})
	return func() uint64 {
		close(done)
		watching.Wait()
		return max(most, m.Resident())
	}
}
