package netboot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs"
	"github.com/rootnfsd/rootnfsd/netboot/tftp"
)

// Config is what New needs.
type Config struct {
	Exports *exports.Exports
	Ports   Ports // that nodes mount their root by
	// Address is the one that nodes mount their root at, IPv4. If it is not valid, it is that at which each asks for its command line.
	Address netip.Addr
	// MachineID returns the machine-id of a node that has a name. It may wait for a disk. Where it is nil, nodes get neither that nor
	// a host name.
	MachineID func(image, node string) (string, error)
	Log       *zap.Logger
}

// Server gives nodes their boot files. Its methods may be called by many goroutines at once.
type Server struct {
	Config
	tftp tftp.Server
	said sayings
}

// New returns a Server.
func New(cfg Config) *Server {
	s := &Server{Config: cfg}
	s.tftp = tftp.Server{Open: s.Open, Done: s.done, Log: cfg.Log}
	return s
}

// Serve answers TFTP on pc until ctx ends, or until pc fails, which is the error.
func (s *Server) Serve(ctx context.Context, pc net.PacketConn) error { return s.tftp.Serve(ctx, pc) }

// Stats returns the counts of the transfers.
func (s *Server) Stats() tftp.Stats { return s.tftp.Stats() }

// Open returns what a node asks for: a file of the version that it boots, or one that is made for it. It may wait for a disk. The error
// is a *tftp.Error, or tftp.ErrIgnore for a node that is too early.
func (s *Server) Open(_ context.Context, r tftp.Request) (tftp.File, error) {
	w, err := parseName(r.Name)
	if err != nil {
		return nil, err
	}
	boot, err := s.Exports.Boot(r.From.Addr(), w.id, stepOf(w.last()))
	if err != nil {
		return nil, s.refuse(r, err)
	}
	b := &booting{s: s, Boot: boot, request: r, log: s.Log.With(zap.String("image", boot.Image), zap.String("version", boot.Version), zap.Stringer("address", r.From.Addr()))}
	opened := false
	defer func() {
		if !opened { // by a panic, too
			boot.Done()
		}
	}()
	f, err := b.open(&w)
	if err != nil {
		return nil, b.refuse(err)
	}
	opened = true
	return &bootFile{f, b}, nil
}

// bootFile is a file that a node is sent.
type bootFile struct {
	tftp.File
	of *booting
}

// Confirmed notes that the node has answered (tftp.Confirmer).
func (f *bootFile) Confirmed() {
	f.of.Confirmed()
	if f.of.named {
		f.of.CommandLineGiven()
	}
}

// Close notes that the transfer is over.
func (f *bootFile) Close() {
	f.File.Close()
	f.of.Done()
}

// refuse returns what a node is told that gets no version.
func (s *Server) refuse(r tftp.Request, err error) error {
	from := r.From.Addr()
	log := s.Log.With(zap.Stringer("address", from), zap.String("file", r.Name))
	switch {
	case errors.Is(err, fs.ErrWouldBlock), errors.Is(err, fs.ErrStale):
		return tftp.ErrIgnore
	case errors.Is(err, fs.ErrAccess):
		if s.said.first(ofAccess, from.String()) {
			log.Warn("a boot file is refused: serve --allow says who gets any")
		}
		return &tftp.Error{Code: tftp.CodeAccess, Message: "this address may not boot from here"}
	case errors.Is(err, fs.ErrNotExist):
		if s.said.first(ofNothing, from.String()) {
			log.Warn("a node finds nothing to boot", zap.Error(err))
		}
		return &tftp.Error{Code: tftp.CodeNotFound, Message: "no version is promoted"}
	}
	if s.said.first(ofVersion, err.Error()) {
		log.Error("a node cannot boot", zap.Error(err))
	}
	return &tftp.Error{Message: "the version cannot be read: the server's log says why"}
}

// done notes how a transfer ended.
func (s *Server) done(r tftp.Result) {
	log := s.Log.With(zap.Stringer("address", r.From.Addr()), zap.String("file", r.Name), zap.Int64("bytes", r.Sent), zap.Duration("took", r.Took))
	switch {
	case r.Err == nil:
		log.Debug("a boot file was sent")
	case errors.Is(r.Err, tftp.ErrAborted):
		log.Debug("a node wants no more of a boot file")
	case r.Sent == 0: // it may never have asked: who sends the request can make up where it comes from
		if s.said.first(ofTransfer, "unanswered") {
			log.Warn("a node does not answer to what it is sent: a firewall may drop it, or the answers", zap.Error(r.Err))
		}
	case s.said.first(ofTransfer, r.From.Addr().String()):
		log.Warn("a boot file did not arrive", zap.Int64("of", r.Size), zap.Error(r.Err))
	}
}

// booting is a request of a node that boots.
type booting struct {
	s *Server
	*exports.Boot
	request tftp.Request
	log     *zap.Logger
	named   bool // what it gets names the version
}

// errNoFile says that a file is missing, which is nothing strange: firmware asks for what it might need.
var errNoFile = &tftp.Error{Code: tftp.CodeNotFound, Message: "the image has no such file"}

func (b *booting) open(w *wanted) (tftp.File, error) {
	dir, err := bootDir(b.Tree)
	if err != nil {
		return nil, err
	}
	names := w.names
	if w.who != "" {
		if own, err := dir.find(w.who); err == nil && own.isDir() {
			names = append([]string{w.who}, names...)
		}
	}
	switch {
	case w.last() == commandLineFile || dir.holdsCommandLine(names):
		return b.commandLine(dir, names)
	case len(names) > 1:
	case names[0] == scriptFile:
		return b.script(dir)
	case names[0] == kernelFile || names[0] == initramfsFile:
		return paired(dir, names[0])
	}
	return file(dir.regular(names...))
}

// commandLine returns a cmdline.txt, or what config.txt names in its place: the firmware may be told to look for it in a directory (os_prefix in config.txt).
func (b *booting) commandLine(dir *spot, names []string) (tftp.File, error) {
	parent, err := dir.find(names[:len(names)-1]...)
	if err != nil {
		return nil, err
	}
	if !parent.isDir() {
		return nil, fs.ErrNotDir
	}
	image, problem := parent.words(names[len(names)-1])
	b.say(problem)
	words, err := b.words(image)
	if err != nil {
		return nil, err
	}
	b.named = true
	return made(Text(words) + "\n"), nil
}

// script returns the image's own script for iPXE or, where it has none, one that boots its kernel.
func (b *booting) script(dir *spot) (tftp.File, error) {
	if own, err := dir.regular(scriptFile); err == nil {
		return treeFile{own}, nil
	}
	if _, _, err := dir.kernelPair(); err != nil {
		return nil, err
	}
	image, problem := dir.words(commandLineFile)
	if !errors.Is(problem, fs.ErrNotExist) { // machines that have no such firmware need none
		b.say(problem)
	}
	words, err := b.words(image)
	if err != nil {
		return nil, err
	}
	text, problem := script(words)
	b.say(problem)
	b.named = true
	return made(text), nil
}

// words returns the node's command line, given the image's words. What is strange about it is logged.
func (b *booting) words(image []string) ([]Word, error) {
	l := Line{Server: cmp.Or(b.s.Address, b.request.Local), Ports: b.s.Ports, Image: b.Image, Version: b.Version, FSID: b.Tree.FSID(), Draft: b.Draft, Words: image}
	if !l.Server.Is4() {
		b.say(errors.New("a node asks for its command line over IPv6, by which neither klibc nor the kernel mounts a root"))
		return nil, &tftp.Error{Message: "a root is mounted over IPv4 only: ask by that"}
	}
	if n := b.Node; n != nil {
		l.Own = n.Cmdline
		b.identify(&l)
	}
	words, problem := l.All()
	b.say(problem)
	return words, nil
}

// identify adds what tells the node from others. The machine-id is a secret of a kind (machine-id(5)): it goes to the machine that
// is the node for sure.
func (b *booting) identify(l *Line) {
	if b.s.MachineID == nil {
		return
	}
	if !b.Elsewhere {
		l.Hostname = cmp.Or(b.Node.Hostname, b.Node.Name)
	}
	if !b.Trusted {
		return
	}
	id, err := b.s.MachineID(b.Image, b.Node.Name)
	if err != nil {
		b.say(fmt.Errorf("the node boots without its machine-id: %w", err))
		return
	}
	l.MachineID = id
}

// say logs what is wrong with an image, or with what is said of a node, once.
func (b *booting) say(problem error) {
	if problem == nil || !b.s.said.first(ofImage, b.Image+" "+b.Digest.String()+" "+problem.Error()) {
		return
	}
	b.log.Warn("a node may not boot as it should", zap.Error(problem))
}

// refuse returns what a node is told of an error, and logs what is strange.
func (b *booting) refuse(err error) error {
	var told *tftp.Error
	var link *linkError
	switch {
	case errors.As(err, &told):
		return told
	case errors.Is(err, errNoBootFiles):
		b.say(fmt.Errorf("%w; install the firmware's files and a kernel there, and seal it anew", err))
		return &tftp.Error{Code: tftp.CodeNotFound, Message: "the image has no boot files"}
	case errors.As(err, &link):
		b.say(fmt.Errorf("%s is not given to nodes: %w", b.request.Name, link))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrNotDir) {
			return errNoFile
		}
		return &tftp.Error{Code: tftp.CodeAccess, Message: "a symlink leads to no file"}
	}
	switch fs.KindOf(err) {
	case fs.ErrNotExist, fs.ErrNotDir:
		b.log.Debug("the image has no such boot file", zap.String("file", b.request.Name))
		return errNoFile
	case fs.ErrIsDir, fs.ErrInvalid, fs.ErrAccess:
		return &tftp.Error{Code: tftp.CodeAccess, Message: "that is no file"}
	case fs.ErrStale: // it is removed just now
		return tftp.ErrIgnore
	}
	if b.s.said.first(ofImage, "read "+b.Digest.String()+" "+err.Error()) {
		b.log.Error("a boot file cannot be read", zap.String("file", b.request.Name), zap.Error(err))
	}
	return &tftp.Error{Message: "the file cannot be read: the server's log says why"}
}

// paired returns the kernel or the initramfs that goes by one of these names.
func paired(dir *spot, name string) (tftp.File, error) {
	kernel, initramfs, err := dir.kernelPair()
	switch {
	case err == nil && name == kernelFile:
		return treeFile{kernel}, nil
	case err == nil && initramfs != nil:
		return treeFile{initramfs}, nil
	}
	return file(dir.regular(name))
}

// treeFile is a file of a version.
type treeFile struct{ *spot }

var _ tftp.File = treeFile{}

func file(at *spot, err error) (tftp.File, error) {
	if err != nil {
		return nil, err
	}
	return treeFile{at}, nil
}

func (f treeFile) Size() int64 { return int64(f.attr.Size) }

func (f treeFile) ReadAt(p []byte, off int64, nowait bool) (int, error) {
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n, eof, err := f.tree.Read(superuser, f.id(), uint64(off), p, nowait)
	if err == nil && eof && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f treeFile) Close() {}

// madeFile is a file that was made for a node.
type madeFile struct{ *strings.Reader }

var _ tftp.File = madeFile{}

func made(content string) tftp.File { return madeFile{strings.NewReader(content)} }

func (f madeFile) ReadAt(p []byte, off int64, _ bool) (int, error) { return f.Reader.ReadAt(p, off) }

func (f madeFile) Close() {}
