package image

import (
	"bufio"
	"encoding/binary"
	"io"

	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/fs/source"
)

// queue is the directories that are still to be listed, first come, first out. In a
// large tree there are many, so it is a file.
type queue struct {
	spool *spool
	r     *bufio.Reader // from the oldest on
	n     int
}

// directory is one that was numbered and not yet listed.
type directory struct {
	queued
	path string
}

// queued is what lies in the queue before each path.
type queued struct {
	Inode   uint32
	Parent  uint32
	Was     fs.NodeID // when the tree was sealed last
	PathLen uint32
	Meta    source.Meta
}

func newQueue(s *Store) (queue, error) {
	spool, err := newSpool(s)
	if err != nil {
		return queue{}, err
	}
	return queue{spool: spool, r: bufio.NewReader(&follower{spool: spool})}, nil
}

func (q *queue) push(d *directory) error {
	d.PathLen = uint32(len(d.path))
	b, err := binary.Append(nil, le, &d.queued)
	if err != nil {
		return err
	}
	q.spool.write(b)
	q.spool.writeString(d.path)
	q.n++
	return nil
}

func (q *queue) pop() (*directory, error) {
	d := new(directory)
	if err := binary.Read(q.r, le, &d.queued); err != nil {
		return nil, err
	}
	path := make([]byte, d.PathLen)
	if _, err := io.ReadFull(q.r, path); err != nil {
		return nil, err
	}
	d.path = string(path)
	q.n--
	return d, nil
}

// follower reads what is written to a spool, while it is.
type follower struct {
	spool *spool
	off   uint64
}

func (f *follower) Read(b []byte) (int, error) {
	n, err := f.spool.behind(b, f.off)
	f.off += uint64(n)
	return n, err
}
