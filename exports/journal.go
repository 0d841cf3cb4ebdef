package exports

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/rootnfsd/rootnfsd/fs/durable"
)

// journal is the boots of an image's nodes that came after nodes.json was written. A node's boot is
// in it before the node gets its root: a version that runs must not be removed because the
// server was killed a moment later. Nodes that boot at once share the writing; to write
// nodes.json for each of them would be work for the square of their number.
type journal struct {
	dir string

	mu    sync.Mutex // guards what follows
	queue []byte     // lines to write
	asked uint64     // lines that there were

	writing sync.Mutex // guards what follows, and is held while nodes.json is written
	file    *os.File   // nil until something is written
	size    int
	done    uint64 // lines that are on the disk, or could not be written
	failed  error  // of the last that was written; what follows it begins a line of its own
}

const (
	journalFile = "boots.journal"
	// mostJournal bounds the file, in bytes. It comes near that where nodes.json cannot be
	// written.
	mostJournal = 16 << 20
	mostLine    = 8 << 10
)

// add makes a line durable.
func (j *journal) add(line []byte) error {
	j.mu.Lock()
	j.queue = append(j.queue, line...)
	j.asked++
	mine := j.asked
	j.mu.Unlock()

	j.writing.Lock()
	defer j.writing.Unlock()
	if j.done >= mine {
		return j.failed // somebody else took it along, or tried to
	}
	j.mu.Lock()
	batch, upto := j.queue, j.asked
	j.queue = nil
	j.mu.Unlock()
	if j.failed != nil {
		batch = append([]byte("\n"), batch...)
	}
	j.done, j.failed = upto, j.write(batch)
	return j.failed
}

func (j *journal) write(lines []byte) error {
	if j.size+len(lines) > mostJournal {
		return errors.New("the journal of boots is full, for the record of nodes cannot be written")
	}
	if err := j.open(); err != nil {
		return err
	}
	n, err := j.file.Write(lines)
	j.size += n
	if err != nil {
		return err
	}
	return fdatasync(j.file)
}

// open opens the file when it is first needed. What a crash may have left in it ends with a line
// of its own.
func (j *journal) open() error {
	if j.file != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(j.dir, journalFile), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		_, err = f.WriteString("\n")
	}
	if err = errors.Join(err, durable.SyncDir(j.dir)); err != nil {
		return errors.Join(err, f.Close())
	}
	j.file, j.size = f, int(info.Size())
	return nil
}

func fdatasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// replacing calls replace to write nodes.json, and forgets what is in that now. That it is not
// forgotten after a power cut does no harm: it is known already.
func (j *journal) replacing(replace func() error) error {
	j.writing.Lock()
	defer j.writing.Unlock()
	if err := replace(); err != nil {
		return err
	}
	err := os.Truncate(filepath.Join(j.dir, journalFile), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	j.size = 0
	return nil
}

// lineOf is what the journal says of a node that booted.
func lineOf(addr netip.Addr, u *use) []byte {
	line, err := json.Marshal(Node{Addr: addr, Uses: []Use{u.export()}})
	if err != nil || len(line) >= mostLine {
		return nil // a path that long is nobody's root
	}
	return append(line, '\n')
}

// replay brings nodes up to what the journal in a directory says. A line that was cut says nothing.
func replay(dir string, nodes []Node) ([]Node, error) {
	f, err := os.Open(filepath.Join(dir, journalFile))
	if errors.Is(err, os.ErrNotExist) {
		return nodes, nil
	}
	if err != nil {
		return nodes, err
	}
	defer f.Close()
	return replayFrom(f, nodes), nil
}

func replayFrom(f io.Reader, nodes []Node) []Node {
	place := make(map[netip.Addr]int, len(nodes))
	for i, n := range nodes {
		place[n.Addr] = i
	}
	lines := bufio.NewScanner(io.LimitReader(f, mostJournal))
	lines.Buffer(nil, mostLine)
	for lines.Scan() {
		var n Node
		if json.Unmarshal(lines.Bytes(), &n) != nil || !n.Addr.IsValid() || len(n.Uses) != 1 {
			continue
		}
		i, known := place[n.Addr]
		if !known {
			i = len(nodes)
			place[n.Addr] = i
			nodes = append(nodes, Node{Addr: n.Addr})
		}
		nodes[i].booted(n.Uses[0])
	}
	return nodes
}

// booted notes a boot that the journal tells of.
func (n *Node) booted(u Use) {
	i := slices.IndexFunc(n.Uses, func(known Use) bool { return known.Digest == u.Digest })
	switch {
	case i < 0:
		n.Uses = append(n.Uses, u)
	case u.Mounted.After(n.Uses[i].Mounted):
		n.Uses[i] = u
	}
}
