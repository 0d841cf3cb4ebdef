package peer

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// The limit program answers records with records. A call says in its first words
// what it wants back: a record with its own xid, the header of a successful RPC
// reply, zeros up to the size of a head, and a payload from a place in a file. That
// is all that an NFS server sends too, and an NFS server that sends the same sizes has
// more to do.

// Positions in a call of the limit, after the mark.
const (
	limitXID     = 0
	limitHead    = 4  // bytes of the reply before the payload
	limitPayload = 8  // bytes of payload
	limitOffset  = 12 // where in the file, 64 bits
	limitArgs    = 20
)

// Bounds of what the limit is asked for.
const (
	limitMinHead    = 28 // the RPC header and a status
	limitMaxHead    = 64 << 10
	limitMaxPayload = 64 << 20
)

// AppendLimitCall appends a call of the limit, which is size bytes long with its
// mark, as the call of NFS was that it stands for.
func AppendLimitCall(b []byte, size int, xid uint32, head, payload int, offset int64) []byte {
	const lastFragment = 1 << 31
	size = max(size, wire.MarkSize+limitArgs)
	be := binary.BigEndian
	start := len(b)
	b = be.AppendUint32(b, lastFragment|uint32(size-wire.MarkSize))
	b = be.AppendUint32(b, xid)
	b = be.AppendUint32(b, uint32(max(head, limitMinHead)))
	b = be.AppendUint32(b, uint32(payload))
	b = be.AppendUint64(b, uint64(offset))
	return append(b, make([]byte, size-(len(b)-start))...)
}

// Limit runs the limit in a process of its own: the program at a path, which takes
// LimitCommand. It sends from a file, a pack of the store.
func Limit(ctx context.Context, program, file string) (*Server, error) {
	s := &Server{
		Name:  "limit",
		About: "no NFS: replies of the same sizes from the same pack, by an epoll loop on each core, sendfile above 32 KiB",
	}
	return s, s.startSelf(ctx, program, LimitCommand, file)
}

// ServeLimit is the limit. It ends only with an error.
func ServeLimit(addr, file string) error {
	pack, err := openPack(file)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	var loops []*limitLoop
	failed := make(chan error, 1)
	for range runtime.NumCPU() {
		epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return err
		}
		l := &limitLoop{epoll: epoll, pack: pack, conns: map[int32]*limitConn{}}
		loops = append(loops, l)
		go func() { failed <- l.run() }()
	}
	go func() {
		for i := 0; ; i++ {
			c, err := ln.Accept()
			if err != nil {
				failed <- err
				return
			}
			if err := loops[i%len(loops)].add(c.(*net.TCPConn)); err != nil {
				failed <- err
				return
			}
		}
	}()
	return <-failed
}

// pack is the file that payloads come from.
type pack struct {
	fd   int
	size uint64
}

func openPack(path string) (pack, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return pack{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	return pack{fd: fd, size: uint64(st.Size)}, err
}
