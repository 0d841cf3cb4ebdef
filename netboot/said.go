package netboot

import (
	"sync"
	"time"
)

// sayings keeps the log readable, whatever is asked for: the same is said once an hour, and not more
// than so many things a minute.
type sayings struct {
	mu    sync.Mutex
	said  map[string]time.Time
	began time.Time // the minute
	n     int       // said in it
}

const (
	sayAgain    = time.Hour
	mostSayings = 4096 // are remembered
	mostAMinute = 60
)

// first reports whether something is to be said now.
func (s *sayings) first(what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if at, ok := s.said[what]; ok && now.Sub(at) < sayAgain {
		return false
	}
	if now.Sub(s.began) >= time.Minute {
		s.began, s.n = now, 0
	}
	if s.n++; s.n > mostAMinute {
		return false
	}
	if s.said == nil || len(s.said) >= mostSayings {
		s.said = map[string]time.Time{}
	}
	s.said[what] = now
	return true
}
