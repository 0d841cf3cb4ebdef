package nfs

import "sync"

// Sizes of buffers, in bytes.
const (
	// maxIO is the largest READ or WRITE, as FSINFO says (rtmax, wtmax). The
	// Linux client asks for no more (NFS_MAX_FILE_IO_SIZE).
	maxIO = 1 << 20
	// maxHeader is room for everything in a call or reply but its payload: RPC
	// header, credentials of 400 bytes, handle, attributes.
	maxHeader = 4 << 10
	// maxRecord is the largest record that is accepted.
	maxRecord = maxIO + maxHeader

	// smallSize holds hundreds of calls that carry no data. It is what a
	// connection has while it is being served, so it counts a thousandfold.
	smallSize = 16 << 10
	// replySize holds a READ of 128 KiB, which is what Linux reads ahead by
	// default, or hundreds of small replies.
	replySize = 128<<10 + maxHeader
	// largeSize holds any record, with a mark.
	largeSize = maxRecord + 4
)

type (
	smallBuffer [smallSize]byte
	replyBuffer [replySize]byte
	largeBuffer [largeSize]byte
)

// pools recycle what a connection needs only while it has something to do, so
// that an idle one holds nothing.
type pools struct {
	small, reply, large, calls, entries sync.Pool
}

func get[T any](p *sync.Pool) *T {
	if v := p.Get(); v != nil {
		return v.(*T)
	}
	return new(T)
}

// readBufferSize is the size of the buffer for a reply that carries n bytes of
// data.
func readBufferSize(n int) int {
	if n <= replySize-maxHeader {
		return replySize
	}
	return largeSize
}

// bufferSize is the size of the smallest buffer that n bytes fit into.
func bufferSize(n int) int {
	switch {
	case n <= smallSize:
		return smallSize
	case n <= replySize:
		return replySize
	default:
		return largeSize
	}
}

// buffer returns a buffer of a size that bufferSize or readBufferSize gave, and
// what gives it back.
func (p *pools) buffer(size int) (buf []byte, recycle func()) {
	switch size {
	case smallSize:
		b := get[smallBuffer](&p.small)
		return b[:], func() { p.small.Put(b) }
	case replySize:
		b := get[replyBuffer](&p.reply)
		return b[:], func() { p.reply.Put(b) }
	default:
		b := get[largeBuffer](&p.large)
		return b[:], func() { p.large.Put(b) }
	}
}
