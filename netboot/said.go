package netboot

import (
	"sync"
	"time"
)

// sayings keeps the log readable, whatever is asked for: the same is said once an hour, and not more
// than so many things of a kind a minute. What anybody can cause thereby hides nothing else.
type sayings struct {
	mu    sync.Mutex
	said  map[saying]time.Time
	began time.Time    // the minute
	n     map[kind]int // said in it
}

// saying is something that was said.
type saying struct {
	kind kind
	what string
}

// kind is what something is about.
type kind string

const (
	ofAccess   kind = "access"   // who may have no boot files; anybody can make up an address
	ofNothing  kind = "nothing"  // nodes for which there is no version
	ofVersion  kind = "version"  // versions that cannot be read
	ofTransfer kind = "transfer" // transfers that failed
	ofImage    kind = "image"    // what is wrong with a version's boot files
)

const (
	sayAgain    = time.Hour
	mostSayings = 4096 // are remembered
	mostAMinute = 30
)

// first reports whether something is to be said now.
func (s *sayings) first(of kind, what string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	this := saying{of, what}
	if at, ok := s.said[this]; ok && now.Sub(at) < sayAgain {
		return false
	}
	if now.Sub(s.began) >= time.Minute {
		s.began, s.n = now, map[kind]int{}
	}
	if s.n[of]++; s.n[of] > mostAMinute {
		return false
	}
	if s.said == nil || len(s.said) >= mostSayings {
		s.said = map[saying]time.Time{}
	}
	s.said[this] = now
	return true
}
