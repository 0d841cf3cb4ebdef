package image

import "github.com/rootnfsd/rootnfsd/fs"

// batch is objects on their way from the walker by way of a worker to add. One by
// one, a seal of 200,000 objects that did not change takes 0.99 s of processor time
// instead of 0.80.
type batch struct {
	objects []object
	reads   uint64 // bytes of files that fit in buf
	buf     *[blockSize]byte
	extents []storedExtent // those of all objects
}

const batchSize = 64

// hasRoom reports whether one object more can be added.
func (t *batch) hasRoom(o *object) bool {
	return len(t.objects) < batchSize && t.reads+o.buffered() <= blockSize
}

func (t *batch) add(o object) {
	t.reads += o.buffered()
	t.objects = append(t.objects, o)
}

// buffered is how much of the content of an object may be in memory at a time with
// that of the others in the batch.
func (o *object) buffered() uint64 {
	if o.listed || o.meta.Kind != fs.Regular || o.meta.Size > blockSize {
		return 0
	}
	return o.meta.Size
}

// buffer returns memory for n bytes of content.
func (t *batch) buffer(n uint64, from buffers) []byte {
	if t.buf == nil {
		t.buf, t.reads = from.get(), 0
	}
	t.reads += n
	return t.buf[t.reads-n : t.reads]
}

// reset makes the batch empty and returns the memory that it had for content, if any.
func (t *batch) reset() *[blockSize]byte {
	buf := t.buf
	clear(t.objects)
	clear(t.extents)
	*t = batch{objects: t.objects[:0], extents: t.extents[:0]}
	return buf
}
