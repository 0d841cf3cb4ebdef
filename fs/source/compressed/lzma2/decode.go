package lzma2

import "encoding/binary"

const (
	states       = 12
	literalSize  = 0x300
	maxLCLP      = 4
	topValue     = 1 << 24
	evenly       = 1 << 10 // the probability of a bit that nothing is known of
	minMatch     = 2
	endPosModel  = 14 // the first slot some of whose bits are not modelled
	alignBits    = 4
	probBits     = 11
	moveBits     = 5
	firstLiteral = 7 // the first of the states that follow a match
	// margin is how many bytes one symbol can take, a byte each bit: what is behind
	// the end of a chunk is noticed only after a symbol.
	margin = 64
)

// afterLiteral is the state that follows each with a literal.
var afterLiteral = [16]uint32{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5}

// lengths are the probabilities of how long a match is.
type lengths struct {
	choice [2]uint16
	low    [16][8]uint16
	mid    [16][8]uint16
	high   [256]uint16
}

// probabilities are the model of LZMA.
type probabilities struct {
	match, rep0Long       [states][16]uint16
	rep, rep0, rep1, rep2 [16]uint16
	slot                  [4][64]uint16
	special               [128]uint16
	align                 [16]uint16
	length, repLength     lengths
	literal               [literalSize << maxLCLP]uint16
}

// decoder is the state of LZMA.
type decoder struct {
	in        [maxCompressed + margin]byte
	inPos     int
	inEnd     int
	rng, code uint32

	lc, lpMask, pbMask     uint32
	state                  uint32
	rep0, rep1, rep2, rep3 uint32
	pending                int // what is left of a match
	probs                  probabilities
}

// setProps takes the parameters of the model, all in a byte.
func (d *decoder) setProps(b byte) error {
	if b >= 9*5*5 {
		return ErrCorrupt
	}
	lc, lp, pb := b%9, b/9%5, b/45
	if lc+lp > maxLCLP {
		return ErrCorrupt
	}
	d.lc, d.lpMask, d.pbMask = uint32(lc), 1<<lp-1, 1<<pb-1
	return nil
}

// reset forgets everything but the dictionary.
func (d *decoder) reset() {
	d.state, d.rep0, d.rep1, d.rep2, d.rep3 = 0, 0, 0, 0, 0
	p := &d.probs
	for i := range p.match {
		fill(p.match[i][:])
		fill(p.rep0Long[i][:])
	}
	for _, all := range [][]uint16{p.rep[:], p.rep0[:], p.rep1[:], p.rep2[:], p.special[:], p.align[:], p.literal[:]} {
		fill(all)
	}
	for i := range p.slot {
		fill(p.slot[i][:])
	}
	for _, l := range []*lengths{&p.length, &p.repLength} {
		fill(l.choice[:])
		fill(l.high[:])
		for i := range l.low {
			fill(l.low[i][:])
			fill(l.mid[i][:])
		}
	}
}

func fill(probs []uint16) {
	for i := range probs {
		probs[i] = evenly
	}
}

// begin begins with a chunk of n bytes, which are in d.in.
func (d *decoder) begin(n int) error {
	if n < 5 || d.in[0] != 0 {
		return ErrCorrupt
	}
	clear(d.in[n:min(n+margin, len(d.in))])
	d.inPos, d.inEnd = 5, n
	d.rng, d.code = 1<<32-1, binary.BigEndian.Uint32(d.in[1:])
	return nil
}

// isFinished reports whether a chunk ends where its content does.
func (d *decoder) isFinished() bool { return d.inPos == d.inEnd && d.code == 0 }

// bit decodes a bit whose probability is p, without a branch, for there is no telling
// which way it would go. The range must be made larger afterwards if it is below
// topValue, which is done by the callers: this way the compiler inlines it.
func bit(rng, code uint32, p *uint16) (newRange, newCode, b uint32) {
	v := uint32(*p)
	bound := rng >> probBits * v
	less := uint64(code) - uint64(bound)
	zero := uint32(less >> 32) // all ones if the bit is 0
	*p = uint16(v - uint32(int32(v-zero&(1<<probBits-1<<moveBits+1))>>moveBits))
	return rng - bound + zero&(bound+bound-rng), uint32(less) + zero&bound, zero + 1
}

// decode decodes to z.pos == limit, which is not behind the end of the window or the chunk.
//
// All that changes is in variables, which the compiler keeps in registers.
func (z *Reader) decode(limit int) error {
	buf, pos := z.buf, z.pos
	if z.pending > 0 {
		n := min(z.pending, limit-pos)
		repeat(buf, pos, int(z.rep0)+1, n)
		pos += n
		z.pending -= n
	}
	var (
		p          = &z.probs
		in         = &z.in
		i, end     = z.inPos, z.inEnd
		rng, code  = z.rng, z.code
		state      = z.state
		rep0, rep1 = z.rep0, z.rep1
		rep2, rep3 = z.rep2, z.rep3
		prev       byte
		b          uint32
	)
	switch {
	case pos > 0:
		prev = buf[pos-1]
	case z.full:
		prev = buf[len(buf)-1]
	}
	for pos < limit {
		if i > end {
			return ErrCorrupt
		}
		align := uint32(pos) & z.pbMask & 15
		if rng, code, b = bit(rng, code, &p.match[state][align]); rng < topValue {
			rng, code = rng<<8, code<<8|uint32(in[i])
			i++
		}
		if b == 0 {
			at := (uint32(pos)&z.lpMask)<<z.lc + uint32(prev)>>(8-z.lc)
			literal := (*[literalSize]uint16)(p.literal[literalSize*at:])
			symbol := uint32(1)
			if state < firstLiteral {
				for symbol < 0x100 {
					if rng, code, b = bit(rng, code, &literal[symbol]); rng < topValue {
						rng, code = rng<<8, code<<8|uint32(in[i])
						i++
					}
					symbol = symbol<<1 | b
				}
			} else {
				from := pos - int(rep0) - 1
				if from < 0 {
					from += len(buf)
				}
				like, differs := uint32(buf[from]), uint32(0x100)
				for symbol < 0x100 {
					like <<= 1
					l := like & differs
					if rng, code, b = bit(rng, code, &literal[differs+l+symbol]); rng < topValue {
						rng, code = rng<<8, code<<8|uint32(in[i])
						i++
					}
					symbol = symbol<<1 | b
					differs &= l ^ (b - 1)
				}
			}
			prev = byte(symbol)
			buf[pos] = prev
			pos++
			state = afterLiteral[state]
			continue
		}

		if rng, code, b = bit(rng, code, &p.rep[state]); rng < topValue {
			rng, code = rng<<8, code<<8|uint32(in[i])
			i++
		}
		isRep := b == 1
		model := &p.length
		if isRep {
			model = &p.repLength
			if rng, code, b = bit(rng, code, &p.rep0[state]); rng < topValue {
				rng, code = rng<<8, code<<8|uint32(in[i])
				i++
			}
			if b == 0 {
				if rng, code, b = bit(rng, code, &p.rep0Long[state][align]); rng < topValue {
					rng, code = rng<<8, code<<8|uint32(in[i])
					i++
				}
				if b == 0 { // a single byte
					if !z.reaches(rep0, pos) {
						return ErrCorrupt
					}
					from := pos - int(rep0) - 1
					if from < 0 {
						from += len(buf)
					}
					prev = buf[from]
					buf[pos] = prev
					pos++
					if state < firstLiteral {
						state = 9
					} else {
						state = 11
					}
					continue
				}
			} else {
				if rng, code, b = bit(rng, code, &p.rep1[state]); rng < topValue {
					rng, code = rng<<8, code<<8|uint32(in[i])
					i++
				}
				if b == 0 {
					rep0, rep1 = rep1, rep0
				} else {
					if rng, code, b = bit(rng, code, &p.rep2[state]); rng < topValue {
						rng, code = rng<<8, code<<8|uint32(in[i])
						i++
					}
					if b == 0 {
						rep0, rep1, rep2 = rep2, rep0, rep1
					} else {
						rep0, rep1, rep2, rep3 = rep3, rep0, rep1, rep2
					}
				}
			}
		}

		// How long it is: a tree of 3 bits, of 3 more, or of 8.
		tree, size, length := model.low[align][:], uint32(8), uint32(minMatch)
		if rng, code, b = bit(rng, code, &model.choice[0]); rng < topValue {
			rng, code = rng<<8, code<<8|uint32(in[i])
			i++
		}
		if b == 1 {
			tree, length = model.mid[align][:], minMatch+8
			if rng, code, b = bit(rng, code, &model.choice[1]); rng < topValue {
				rng, code = rng<<8, code<<8|uint32(in[i])
				i++
			}
			if b == 1 {
				tree, size, length = model.high[:], 256, minMatch+16
			}
		}
		symbol := uint32(1)
		for symbol < size {
			if rng, code, b = bit(rng, code, &tree[symbol]); rng < topValue {
				rng, code = rng<<8, code<<8|uint32(in[i])
				i++
			}
			symbol = symbol<<1 | b
		}
		length += symbol - size

		if !isRep {
			rep1, rep2, rep3 = rep0, rep1, rep2
			slots := &p.slot[min(length-minMatch, 3)]
			symbol = 1
			for symbol < 64 {
				if rng, code, b = bit(rng, code, &slots[symbol]); rng < topValue {
					rng, code = rng<<8, code<<8|uint32(in[i])
					i++
				}
				symbol = symbol<<1 | b
			}
			slot := symbol - 64
			rep0 = slot
			if slot >= 4 {
				n := slot>>1 - 1
				rep0 = (2 | slot&1) << n
				tree := p.align[:]
				if slot < endPosModel {
					tree = p.special[rep0-slot:]
				} else {
					direct := uint32(0)
					for ; n > alignBits; n-- {
						rng >>= 1
						code -= rng
						zero := 0 - code>>31 // all ones if the bit is 0
						code += rng & zero
						direct = direct<<1 + zero + 1
						if rng < topValue {
							rng, code = rng<<8, code<<8|uint32(in[i])
							i++
						}
					}
					rep0 += direct << alignBits
				}
				symbol = 1
				for k := range n { // from the lowest bit
					if rng, code, b = bit(rng, code, &tree[symbol]); rng < topValue {
						rng, code = rng<<8, code<<8|uint32(in[i])
						i++
					}
					symbol = symbol<<1 | b
					rep0 += b << k
				}
			}
			if state < firstLiteral {
				state = 7
			} else {
				state = 10
			}
		} else if state < firstLiteral {
			state = 8
		} else {
			state = 11
		}

		if !z.reaches(rep0, pos) {
			return ErrCorrupt
		}
		n := min(int(length), limit-pos)
		z.pending = int(length) - n
		repeat(buf, pos, int(rep0)+1, n)
		pos += n
		prev = buf[pos-1]
	}
	if i > end {
		return ErrCorrupt
	}
	z.pos = pos
	z.inPos, z.rng, z.code = i, rng, code
	z.state, z.rep0, z.rep1, z.rep2, z.rep3 = state, rep0, rep1, rep2, rep3
	return nil
}

// reaches reports whether there is content as far back as distance, which begins with 0.
func (z *Reader) reaches(distance uint32, pos int) bool {
	if z.full {
		pos = len(z.buf)
	}
	return uint64(distance) < uint64(pos)
}

// repeat repeats at pos n bytes of what is distance before.
func repeat(buf []byte, pos, distance, n int) {
	from := pos - distance
	if from < 0 {
		from += len(buf)
		k := copy(buf[pos:pos+n], buf[from:])
		if k == n {
			return
		}
		pos, n, from = pos+k, n-k, 0
	}
	for n > 0 { // doubling what repeats
		k := copy(buf[pos:pos+n], buf[from:pos])
		pos += k
		n -= k
	}
}
