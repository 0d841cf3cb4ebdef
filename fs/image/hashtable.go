package image

import "fmt"

// hashTable holds records in a scratch. It has a slot for each record and as many
// free ones at least as a third of these. A record lies in the first slot that was
// free from the one on that the upper bits of its hash select, cyclically; so
// between two free slots lie records with greater hashes than in all slots before,
// but for those that found no free one up to the end.
//
// The first four bytes of a record are not all zero.
type hashTable struct {
	store *Store
	size  int                 // of a record
	hash  func([]byte) uint32 // of a record
	mem   scratch             // has no data if it is empty
	bits  int                 // of the number of slots
	n     int                 // records
}

const minTableBits = 10

func (t *hashTable) slots() int { return 1 << t.bits }

func (t *hashTable) slot(i int) []byte { return t.mem.data[i*t.size:][:t.size:t.size] }

func isFree(record []byte) bool { return le.Uint32(record) == 0 }

// home is the slot that a hash selects.
func (t *hashTable) home(hash uint32) int { return int(uint64(hash) >> (32 - t.bits)) }

// find passes the records to is that may have this hash, and returns the one that
// it accepts. If there is none, it is a free one, where put may put such a record.
func (t *hashTable) find(hash uint32, is func([]byte) bool) ([]byte, error) {
	if t.mem.data == nil || t.n >= t.slots()/4*3 {
		if err := t.grow(); err != nil {
			return nil, err
		}
	}
	return t.seek(hash, is), nil
}

// seek is find in a table that has a free slot.
func (t *hashTable) seek(hash uint32, is func([]byte) bool) []byte {
	for i := t.home(hash); ; i = (i + 1) & (t.slots() - 1) {
		if r := t.slot(i); isFree(r) || is(r) {
			return r
		}
	}
}

// put puts a record where find has just found a free one.
func (t *hashTable) put(free, record []byte) {
	copy(free, record)
	t.n++
}

// grow doubles the number of slots.
func (t *hashTable) grow() error {
	old := *t
	if t.bits = max(minTableBits, t.bits+1); t.bits > 32 {
		return fmt.Errorf("more than %d objects", t.n)
	}
	mem, err := newScratch(t.store, uint64(t.size)<<t.bits)
	if err != nil {
		return err
	}
	t.mem = mem
	if old.mem.data == nil {
		return nil
	}
	defer old.mem.close()
	for i := range old.slots() {
		if r := old.slot(i); !isFree(r) {
			copy(t.seek(t.hash(r), func([]byte) bool { return false }), r)
		}
	}
	return nil
}

// runs calls do for the records between free slots, all those of lesser hashes
// before all those of greater ones; those of a run it may put in order.
func (t *hashTable) runs(do func(run [][]byte) error) error {
	if t.mem.data == nil {
		return nil
	}
	var run, last [][]byte
	for i := range t.slots() {
		r := t.slot(i)
		switch {
		case isFree(r):
			if err := do(run); err != nil {
				return err
			}
			run = run[:0]
		case t.home(t.hash(r)) > i: // it found no free one up to the end
			last = append(last, r)
		default:
			run = append(run, r)
		}
	}
	return do(append(run, last...))
}

func (t *hashTable) close() {
	t.mem.close()
	t.mem = scratch{}
}
