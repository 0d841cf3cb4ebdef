package nfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/rootnfsd/rootnfsd/fs/fstest"
)

// mark makes the mark of a fragment.
func mark(n uint32, last bool) []byte {
	if last {
		n |= 1 << 31
	}
	return binary.BigEndian.AppendUint32(nil, n)
}

// fragments cuts a record into fragments of n bytes.
func fragments(record []byte, n int) []byte {
	var b []byte
	for len(record) > n {
		b = append(append(b, mark(uint32(n), false)...), record[:n]...)
		record = record[n:]
	}
	return append(append(b, mark(uint32(len(record)), true)...), record...)
}

// records feeds a stream to an input, in pieces as long as chunk says, and
// returns the records that come out.
func records(stream []byte, chunk func() int) (out [][]byte, err error) {
	in := input{buf: make([]byte, smallSize)}
	for {
		record, err := in.next()
		if err != nil {
			return out, err
		}
		if record != nil {
			out = append(out, bytes.Clone(record))
			continue
		}
		if len(stream) == 0 {
			if in.pending() {
				return out, errors.New("a part of a record is left")
			}
			return out, nil
		}
		in.pack()
		if len(in.space()) == 0 {
			if len(in.buf) == largeSize {
				return out, errors.New("a record outgrew the largest buffer")
			}
			in.move(make([]byte, largeSize))
		}
		n := copy(in.space(), stream[:min(len(stream), chunk())])
		in.filled(n)
		stream = stream[n:]
	}
}

func TestRecords(t *testing.T) {
	var want [][]byte
	var stream []byte
	for _, size := range []int{1, 40, 44, 4096, smallSize - 4, smallSize - 3, smallSize, 3 * smallSize, maxRecord} {
		for _, fragment := range []int{1, 7, 300, 1 << 17, 1 << 30} {
			if size/fragment > 5_000 {
				continue
			}
			record := fstest.Bytes(size)
			want = append(want, record)
			stream = append(stream, fragments(record, fragment)...)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for name, chunk := range map[string]func() int{
		"all at once":   func() int { return 1 << 30 },
		"odd pieces":    func() int { return 1 + rng.IntN(70_000) },
		"small pieces":  func() int { return 1 + rng.IntN(500) },
		"segments":      func() int { return 1448 },
		"nearly a page": func() int { return 4095 },
	} {
		got, err := records(stream, chunk)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%s: %d records, want %d", name, len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("%s: record %d of %d bytes differs", name, i, len(want[i]))
			}
		}
	}
}

func TestRecordsRefused(t *testing.T) {
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	empties := func(n int) []byte { return bytes.Repeat(mark(0, false), n) }
	for name, c := range map[string]struct {
		stream []byte
		want   error
	}{
		"one byte too large":        {mark(maxRecord+1, true), errRecordTooLarge},
		"2 GiB":                     {mark(0x7fffffff, true), errRecordTooLarge},
		"HTTP":                      {[]byte("GET / HTTP/1.1\r\n"), errRecordTooLarge},
		"TLS":                       {[]byte("\x16\x03\x01\x02\x00\x01"), errRecordTooLarge},
		"SSH":                       {[]byte("SSH-2.0-OpenSSH\r\n"), errRecordTooLarge},
		"empty":                     {mark(0, true), errRecordEmpty},
		"empty after empty":         {join(mark(0, false), mark(0, true)), errRecordEmpty},
		"fragments sum up too high": {join(mark(maxRecord, false), make([]byte, maxRecord), mark(1, true)), errRecordTooLarge},
		"many of them":              {bytes.Repeat(join(mark(4096, false), make([]byte, 4096)), 300), errRecordTooLarge},
		"too many empty fragments":  {empties(maxEmptyFragments + 1), errFragments},
	} {
		if _, err := records(c.stream, func() int { return 1 << 30 }); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	ok := join(empties(maxEmptyFragments-1), mark(1, false), []byte("x"), mark(0, true))
	if got, err := records(ok, func() int { return 7 }); err != nil || len(got) != 1 || string(got[0]) != "x" {
		t.Errorf("empty fragments around a byte: %q, %v", got, err)
	}
}

// A record that is one fragment and there in full is not copied.
func TestRecordInPlace(t *testing.T) {
	in := input{buf: make([]byte, smallSize)}
	in.filled(copy(in.space(), fragments([]byte("record"), 100)))
	record, err := in.next()
	if err != nil || string(record) != "record" || &record[0] != &in.buf[4] {
		t.Errorf("%q, %v", record, err)
	}
}

// FuzzRecords holds what comes out of a stream against a plain reading of it.
func FuzzRecords(f *testing.F) {
	f.Add(fragments([]byte("one"), 10), uint16(3))
	f.Add(fragments(fstest.Bytes(100), 1), uint16(1))
	f.Add(append(mark(0, false), fragments([]byte("two"), 2)...), uint16(5))
	f.Add([]byte("GET / HTTP/1.1\r\n"), uint16(100))
	f.Add(mark(0x7fffffff, false), uint16(2))
	f.Fuzz(func(t *testing.T, stream []byte, chunk uint16) {
		got, err := records(stream, func() int { return 1 + int(chunk) })
		want, complete := plainRecords(stream)
		if complete && err != nil {
			t.Fatalf("%v", err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d records, want %d: %v", len(got), len(want), err)
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("record %d: % x, want % x", i, got[i], want[i])
			}
		}
	})
}

// plainRecords reads records as RFC 5531, section 11 has it, until one is not
// complete or breaks a limit.
func plainRecords(stream []byte) (out [][]byte, complete bool) {
	for len(stream) > 0 {
		var record []byte
		empty := 0
		for last := false; !last; {
			if len(stream) < 4 {
				return out, false
			}
			m := binary.BigEndian.Uint32(stream)
			n := m &^ (1 << 31)
			last = m>>31 == 1
			stream = stream[4:]
			if n == 0 {
				empty++
			}
			if n == 0 && (last && len(record) == 0 || empty > maxEmptyFragments) {
				return out, false
			}
			if uint64(n)+uint64(len(record)) > maxRecord || uint64(n) > uint64(len(stream)) {
				return out, false
			}
			record = append(record, stream[:n]...)
			stream = stream[n:]
		}
		out = append(out, record)
	}
	return out, true
}
