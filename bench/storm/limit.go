package storm

import (
	"fmt"

	"github.com/rootnfsd/rootnfsd/bench/peer"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// Limit returns the plan for the limit program of package peer: as many calls, as
// large, in the same bursts, and replies as large as those of the server that this
// plan is for. READs become payloads from a file of some size, the limit's own.
func (p *Plan) Limit(file uint64) (*Plan, error) {
	l := &limiter{file: file}
	limit := &Plan{Calls: p.Calls, Bytes: p.Bytes, Skipped: p.Skipped, mount: l.step(&p.mount, 0)}
	for i := range p.steps {
		limit.steps = append(limit.steps, l.step(&p.steps[i], uint32(i)))
	}
	for _, b := range p.bursts {
		limit.bursts = append(limit.bursts, burst{think: b.think, first: b.first, next: b.next})
	}
	if l.short {
		return nil, fmt.Errorf("a file of %d bytes is too small for the READs of the trace", file)
	}
	if len(p.bursts) > 0 {
		limit.spread(len(p.bursts[0].calls))
	}
	return limit, nil
}

// limiter chooses where in its file the limit sends from: each READ has a place of its
// own, as files have in a pack, until the file is used up.
type limiter struct {
	file, next uint64
	short      bool
}

// minReply is the smallest reply that the limit makes.
const minReply = 28

func (l *limiter) step(s *step, xid uint32) step {
	payload := s.payload + wire.Pad(s.payload)
	if uint64(payload) > l.file {
		l.short = true
		return step{}
	}
	const page = 4096
	if l.next > l.file-uint64(payload) {
		l.next = 0
	}
	at := l.next
	l.next += (uint64(payload) + page - 1) / page * page
	size := max(s.size, minReply+payload)
	return step{
		size:    size,
		payload: s.payload,
		call:    peer.AppendLimitCall(nil, len(s.call), xid, size-payload, payload, int64(at)),
	}
}
