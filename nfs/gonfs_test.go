package nfs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	gonfs "github.com/willscott/go-nfs"
	"github.com/willscott/go-nfs/helpers"
	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/fs/fstest"
	"github.com/rootnfsd/rootnfsd/fs/image"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

// differences is where go-nfs answers differently over the same version, and
// why the answer of this server is the right one. A difference that is not here
// fails TestAgainstGoNFS, and so does one that is here and has gone.
var differences = map[string]string{
	"GETATTR mode":   "RFC 1813, section 2.5: mode has 0x800, 0x400 and 0x200 for setuid, setgid and sticky; go-nfs sends Go's os.FileMode, which has them elsewhere, so su and /tmp break",
	"GETATTR used":   "RFC 1813, section 2.5: used is what is stored, without holes; go-nfs repeats the size",
	"GETATTR fsid":   "RFC 1813, section 2.5: fsid identifies the file system; go-nfs gives every export 0, so a client takes two for one",
	"GETATTR mtime":  "RFC 1813, section 2.6: nfstime3 has no sign, so a time before 1970 must not come out as one after 2106",
	"GETATTR atime":  "RFC 1813, section 2.6, as for mtime",
	"GETATTR ctime":  "RFC 1813, section 2.6, as for mtime",
	"ACCESS root":    "RFC 1813, section 3.3.4: the server says what the caller may do; go-nfs says what was asked, and promises writes that it refuses",
	"ACCESS other":   "RFC 1813, section 3.3.4: by the caller's credentials; with go-nfs every user may read /etc/shadow",
	"LOOKUP ..":      "RFC 1813, section 3.3.3: .. is the parent; of the root it is the root here, so that nobody leaves the export",
	"LOOKUP slash":   "RFC 1813, section 3.2: a filename3 is one component, so a server must not walk several, through symlinks at that",
	"LOOKUP other":   "RFC 1813, section 4.4: a server checks permission on each call by its credentials",
	"READ other":     "RFC 1813, section 4.4: as for LOOKUP",
	"READ link":      "RFC 1813, section 3.3.6: NFS3ERR_INVAL for what is no regular file; go-nfs reads what the link points to",
	"READ directory": "RFC 1813, section 3.3.6: not a regular file is NFS3ERR_INVAL, of which NFS3ERR_ISDIR is what nfsd says for a directory",
	"READ special":   "RFC 1813, section 3.3.6: NFS3ERR_INVAL",
	"READDIR other":  "RFC 1813, section 4.4: as for LOOKUP",
	"FSINFO":         "RFC 1813, section 3.3.19: rtmax is what a READ can ask for; go-nfs offers a gigabyte, and a dtpref of 8 KiB",
	"PATHCONF":       "RFC 1813, section 3.3.20: linkmax is more than 1 where there are hard links, and case matters",
	"FSSTAT":         "RFC 1813, section 3.3.18: the size of the file system",
	"version 2":      "RFC 5531, section 9: PROG_MISMATCH with the versions that there are",
	"version 4":      "RFC 5531, section 9: PROG_MISMATCH, or mount(8) without options never falls back; go-nfs takes COMPOUND for GETATTR",
	"NFSACL":         "RFC 5531, section 9: PROG_UNAVAIL for a program that is not there, not PROC_UNAVAIL; here it is, for overlayfs (acl.go)",
	"no procedure":   "RFC 5531, section 9: PROC_UNAVAIL",
	"garbage":        "RFC 5531, section 9: GARBAGE_ARGS, and the connection stays",
	"trailing bytes": "RFC 5531, section 9: GARBAGE_ARGS for arguments that are not what the procedure takes",
	"RPC version":    "RFC 5531, section 9: MSG_DENIED with RPC_MISMATCH 2..2",
	"fragments":      "RFC 5531, section 11: a record may come in any number of fragments",
	"forged handle":  "RFC 1813, section 2.6: NFS3ERR_BADHANDLE",
	"restart":        "RFC 1813, section 2.4: handles outlive the server, or its clients fail with ESTALE",
	"MNT":            "RFC 1813, section 5.2.1: MNT3ERR_NOENT for what is not exported",
	"EXPORT":         "RFC 1813, section 5.2.5",
	"DUMP":           "RFC 1813, section 5.2.2",
}

// TestAgainstGoNFS asks this server and go-nfs the same questions over the same
// sealed version, which go-nfs sees through its billy.Filesystem.
func TestAgainstGoNFS(t *testing.T) {
	objects := fstest.Sample()
	v := sealed(t, objects)
	gonfs.Log.SetLevel(gonfs.PanicLevel)

	state := t.TempDir()
	ours, theirs := startOurs(t, v, state), startGoNFS(t, v)
	got := map[string][]string{}
	compare := func(where string, a, b map[string]string) {
		for _, aspect := range slices.Sorted(maps.Keys(a)) {
			if a[aspect] != b[aspect] {
				got[aspect] = append(got[aspect], fmt.Sprintf("%s: %s; go-nfs: %s", where, a[aspect], b[aspect]))
			}
		}
	}
	a, b := newProber(t, ours), newProber(t, theirs)
	for _, o := range objects {
		compare(fmt.Sprintf("%.60q", o.Path), a.object(o.Path), b.object(o.Path))
	}
	compare("server", a.server(), b.server())
	compare("server", map[string]string{"restart": survives(t, ours, startOurs(t, v, state))},
		map[string]string{"restart": survives(t, theirs, startGoNFS(t, v))})

	for aspect, where := range got {
		if differences[aspect] == "" {
			t.Errorf("%s differs, and nobody says why:\n  %s", aspect, strings.Join(where, "\n  "))
			continue
		}
		t.Logf("%s differs %d times, for example %s\n    %s", aspect, len(where), where[0], differences[aspect])
	}
	for aspect := range differences {
		if got[aspect] == nil {
			t.Errorf("%s no longer differs: take it off the list", aspect)
		}
	}
}

// sealed makes the objects on disk and a version of them.
func sealed(t *testing.T, objects fstest.Objects) *image.Version {
	t.Helper()
	dir := t.TempDir()
	if err := objects.Create(dir); err != nil {
		t.Fatal(err)
	}
	return sealDir(t, dir)
}

// startOurs starts this server; what it must remember is in the directory state.
func startOurs(t *testing.T, v *image.Version, state string) string {
	t.Helper()
	x, err := exports.New(exports.Config{
		Images: []exports.Image{{Name: "images", Dir: "/srv/images", StateDir: state, Versions: oneVersion{v}}},
		Allow:  exports.DefaultAllow(),
		Log:    zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- New(Config{Exports: x, Log: zap.NewNop()}).Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func startGoNFS(t *testing.T, v *image.Version) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go gonfs.Serve(ln, helpers.NewCachingHandler(helpers.NewNullAuthHandler(v.Filesystem()), 1<<16))
	t.Cleanup(func() { ln.Close() })
	return ln.Addr().String()
}

// prober asks a server questions and makes strings of the answers. It does not
// mind a server that closes the connection or answers nonsense: that is an
// answer too.
type prober struct {
	t    *testing.T
	addr string
	*client
	root   []byte
	fileid map[uint64]string // the first path that was seen with it
}

func newProber(t *testing.T, addr string) *prober {
	p := &prober{t: t, addr: addr, fileid: map[uint64]string{}}
	p.redial()
	p.root = p.client.mount("/")
	return p
}

func (p *prober) redial() { p.client = dial(p.t, p.addr) }

// ask makes a call as somebody and returns the results, or why there are none.
func (p *prober) ask(uid uint32, prog, vers, proc uint32, args func(*wire.Encoder)) (*wire.Decoder, string) {
	p.client.cred = authSys(uid, uid)
	p.client.push(prog, vers, proc, args)
	return p.exchange()
}

func (p *prober) exchange() (*wire.Decoder, string) {
	p.client.conn.SetDeadline(time.Now().Add(5 * time.Second)) // some calls go-nfs never answers
	p.client.flush()
	msg, err := p.client.receive()
	if err != nil {
		p.redial()
		return nil, "no reply"
	}
	d := wire.NewDecoder(msg)
	_, stat, accepted := d.ReplyHeader()
	switch {
	case !accepted:
		return nil, "denied"
	case stat != wire.Success:
		return nil, fmt.Sprintf("accept_stat %d", stat)
	}
	return &d, ""
}

func (p *prober) nfs(uid uint32, proc gonfs.NFSProcedure, args func(*wire.Encoder)) (d *wire.Decoder, status string) {
	d, failed := p.ask(uid, progNFS, 3, uint32(proc), args)
	if failed != "" {
		return nil, failed
	}
	return d, gonfs.NFSStatus(d.Uint32()).String()
}

const ok = "Call Completed Successfull"

// lookup looks one name up.
func (p *prober) lookup(uid uint32, dir []byte, name string) (handle []byte, status string) {
	d, status := p.nfs(uid, gonfs.NFSProcedureLookup, func(e *wire.Encoder) {
		e.Opaque(dir)
		e.String(name)
	})
	if d == nil || !strings.HasPrefix(status, ok) {
		return nil, status
	}
	return slices.Clone(d.Opaque(64)), ok
}

// identity is the path by which the object of a handle was first seen.
func (p *prober) identity(handle []byte, path string) string {
	d, status := p.nfs(0, gonfs.NFSProcedureGetAttr, func(e *wire.Encoder) { e.Opaque(handle) })
	if d == nil || len(handle) == 0 {
		return status
	}
	a := decodeAttr(d)
	if p.fileid[a.fileid] == "" {
		p.fileid[a.fileid] = path
	}
	return p.fileid[a.fileid]
}

type fattr struct {
	kind, mode, nlink, uid, gid uint32
	size, used                  uint64
	rdev                        [2]uint32
	fsid, fileid                uint64
	times                       [3][2]uint32
}

func decodeAttr(d *wire.Decoder) (a fattr) {
	a.kind, a.mode, a.nlink, a.uid, a.gid = d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32(), d.Uint32()
	a.size, a.used = d.Uint64(), d.Uint64()
	a.rdev = [2]uint32{d.Uint32(), d.Uint32()}
	a.fsid, a.fileid = d.Uint64(), d.Uint64()
	for i := range a.times {
		a.times[i] = [2]uint32{d.Uint32(), d.Uint32()}
	}
	return a
}

// object asks all there is to ask of the object at a path.
func (p *prober) object(path string) map[string]string {
	answers := map[string]string{}
	handle := p.root
	for _, name := range splitNames(path) {
		next, status := p.lookup(0, handle, name)
		if next == nil {
			return map[string]string{"LOOKUP": status}
		}
		handle = next
	}
	answers["LOOKUP"] = ok

	d, status := p.nfs(0, gonfs.NFSProcedureGetAttr, func(e *wire.Encoder) { e.Opaque(handle) })
	answers["GETATTR"] = status
	if d == nil {
		return answers
	}
	a := decodeAttr(d)
	for aspect, value := range map[string]any{
		"type": a.kind, "mode": a.mode, "nlink": a.nlink, "uid": a.uid, "gid": a.gid, "size": a.size, "used": a.used,
		"rdev": a.rdev, "fsid": a.fsid, "atime": a.times[0], "mtime": a.times[1], "ctime": a.times[2],
	} {
		answers["GETATTR "+aspect] = fmt.Sprint(value)
	}
	answers["GETATTR fileid"] = p.identity(handle, path)

	const other = 4711
	for who, uid := range map[string]uint32{"root": 0, "other": other} {
		answers["ACCESS "+who] = p.access(uid, handle)
	}
	switch {
	case a.kind == 2:
		p.directory(answers, handle, path, other)
	case a.kind == 5:
		answers["READLINK"] = p.readlink(handle)
		answers["READ link"] = p.readStatus(0, handle)
	case strings.HasPrefix(path, "/dev/"):
		answers["READ special"] = p.readStatus(0, handle)
	default:
		answers["READ content"] = p.readAll(handle, a.size)
		answers["READ end"] = p.readEnd(handle, a.size)
		answers["READ other"] = p.readStatus(other, handle)
	}
	answers["mutations"] = p.mutations(handle, a.kind == 2)
	return answers
}

func (p *prober) access(uid uint32, handle []byte) string {
	d, status := p.nfs(uid, gonfs.NFSProcedureAccess, func(e *wire.Encoder) {
		e.Opaque(handle)
		e.Uint32(0x3f)
	})
	if d == nil || d.Uint32() != 1 {
		return status
	}
	decodeAttr(d)
	return fmt.Sprintf("%#x", d.Uint32())
}

func (p *prober) readlink(handle []byte) string {
	d, status := p.nfs(0, gonfs.NFSProcedureReadlink, func(e *wire.Encoder) { e.Opaque(handle) })
	if d == nil || d.Uint32() != 1 {
		return status
	}
	decodeAttr(d)
	return fmt.Sprintf("%q", d.Opaque(8192))
}

func (p *prober) read(uid uint32, handle []byte, off uint64, count uint32) (data []byte, eof bool, status string) {
	d, status := p.nfs(uid, gonfs.NFSProcedureRead, readArgsOf(handle, off, count))
	if d == nil {
		return nil, false, status
	}
	if d.Bool() {
		decodeAttr(d)
	}
	if !strings.HasPrefix(status, ok) {
		return nil, false, status
	}
	d.Uint32()
	eof = d.Bool()
	return d.Opaque(1 << 20), eof, ok
}

func (p *prober) readStatus(uid uint32, handle []byte) string {
	_, _, status := p.read(uid, handle, 0, 4096)
	return status
}

// readAll is a digest of the content, read in pieces.
func (p *prober) readAll(handle []byte, size uint64) string {
	sum := sha256.New()
	for off := uint64(0); off < size; {
		data, _, status := p.read(0, handle, off, 40_000)
		if len(data) == 0 {
			return status
		}
		sum.Write(data)
		off += uint64(len(data))
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// readEnd is what reads around the end of a file say of it.
func (p *prober) readEnd(handle []byte, size uint64) string {
	var b strings.Builder
	for _, r := range []struct {
		off   uint64
		count uint32
	}{{0, uint32(size)}, {0, uint32(size) + 1}, {size, 1}, {size + 1000, 1}, {0, 0}} {
		data, eof, status := p.read(0, handle, r.off, r.count)
		fmt.Fprintf(&b, "%d %v %s; ", len(data), eof, status)
	}
	return b.String()
}

func (p *prober) directory(answers map[string]string, handle []byte, path string, other uint32) {
	answers["READ directory"] = p.readStatus(0, handle)
	answers["READDIR names"] = p.names(0, handle)
	answers["READDIR other"] = fmt.Sprint(p.names(other, handle) == p.names(0, handle))
	for name, label := range map[string]string{".": "LOOKUP .", "..": "LOOKUP ..", "passwd/x": "LOOKUP slash", "no such name": "LOOKUP missing"} {
		h, status := p.lookup(0, handle, name)
		if h != nil {
			status = p.identity(h, path+"/"+name)
		}
		answers[label] = status
	}
	_, answers["LOOKUP other"] = p.lookup(other, handle, "no such name")
}

// names lists a directory.
func (p *prober) names(uid uint32, handle []byte) string {
	var names []string
	var cookie, verifier uint64
	for range 1000 {
		d, status := p.nfs(uid, gonfs.NFSProcedureReadDir, func(e *wire.Encoder) {
			e.Opaque(handle)
			e.Uint64(cookie)
			e.Uint64(verifier)
			e.Uint32(4096)
		})
		if d == nil || !strings.HasPrefix(status, ok) {
			return status
		}
		if d.Bool() {
			decodeAttr(d)
		}
		verifier = d.Uint64()
		for d.Bool() {
			d.Uint64()
			names = append(names, fmt.Sprintf("%q", d.Opaque(1024)))
			cookie = d.Uint64()
		}
		if d.Bool() {
			slices.Sort(names)
			return strings.Join(names, " ")
		}
	}
	return "no end"
}

// mutations is what calls say that would change an object.
func (p *prober) mutations(handle []byte, dir bool) string {
	diropargs := func(e *wire.Encoder) {
		e.Opaque(handle)
		e.String("new")
	}
	noAttrs := func(e *wire.Encoder) {
		for range 6 {
			e.Uint32(0)
		}
	}
	calls := map[gonfs.NFSProcedure]func(*wire.Encoder){
		gonfs.NFSProcedureSetAttr: func(e *wire.Encoder) { e.Opaque(handle); noAttrs(e); e.Uint32(0) },
	}
	if dir {
		calls[gonfs.NFSProcedureCreate] = func(e *wire.Encoder) { diropargs(e); e.Uint32(0); noAttrs(e) }
		calls[gonfs.NFSProcedureMkDir] = func(e *wire.Encoder) { diropargs(e); noAttrs(e) }
		calls[gonfs.NFSProcedureRemove] = diropargs
		calls[gonfs.NFSProcedureRmDir] = diropargs
	} else {
		calls[gonfs.NFSProcedureWrite] = func(e *wire.Encoder) {
			e.Opaque(handle)
			e.Uint64(0)
			e.Uint32(4)
			e.Uint32(2)
			e.Opaque([]byte("data"))
		}
	}
	var b strings.Builder
	for _, proc := range slices.Sorted(maps.Keys(calls)) {
		_, status := p.nfs(0, proc, calls[proc])
		fmt.Fprintf(&b, "%v: %s; ", proc, status)
	}
	return b.String()
}

// server asks what does not depend on an object.
func (p *prober) server() map[string]string {
	raw := func(prog, vers, proc uint32, args func(*wire.Encoder)) string {
		d, failed := p.ask(0, prog, vers, proc, args)
		if d == nil {
			return failed
		}
		return fmt.Sprintf("%x", d.FixedOpaque(d.Len()))
	}
	root := func(e *wire.Encoder) { e.Opaque(p.root) }
	return map[string]string{
		"FSINFO":         raw(progNFS, 3, uint32(gonfs.NFSProcedureFSInfo), root),
		"FSSTAT":         raw(progNFS, 3, uint32(gonfs.NFSProcedureFSStat), root),
		"PATHCONF":       raw(progNFS, 3, uint32(gonfs.NFSProcedurePathConf), root),
		"NULL":           raw(progNFS, 3, 0, nil),
		"version 2":      raw(progNFS, 2, 1, root),
		"version 4":      raw(progNFS, 4, 1, root),
		"NFSACL":         raw(100227, 3, 0, nil),
		"no procedure":   raw(progNFS, 3, 22, root),
		"garbage":        raw(progNFS, 3, uint32(gonfs.NFSProcedureGetAttr), func(e *wire.Encoder) { e.Uint32(0xffffffff) }),
		"trailing bytes": raw(progNFS, 3, uint32(gonfs.NFSProcedureFSInfo), func(e *wire.Encoder) { root(e); e.Uint32(0) }),
		"forged handle":  raw(progNFS, 3, uint32(gonfs.NFSProcedureGetAttr), func(e *wire.Encoder) { e.Opaque(make([]byte, 32)) }),
		"MNT":            raw(progMount, 3, uint32(gonfs.MountProcMount), func(e *wire.Encoder) { e.String("/not/exported") }),
		"EXPORT":         raw(progMount, 3, uint32(gonfs.MountProcExport), nil),
		"DUMP":           raw(progMount, 3, uint32(gonfs.MountProcDump), nil),
		"RPC version":    p.oddCall(3, false),
		"fragments":      p.oddCall(2, true),
	}
}

// oddCall makes a NULL call with a version of RPC, in one fragment or many.
func (p *prober) oddCall(rpcvers uint32, fragments bool) string {
	var body wire.Encoder
	body.Reset(make([]byte, 128))
	for _, v := range []uint32{1, 0, rpcvers, progNFS, 3, 0, 0, 0, 0, 0} {
		body.Uint32(v)
	}
	b := body.Bytes()
	for i := 0; i < len(b); {
		n := len(b)
		if fragments {
			n = 8
		}
		mark := uint32(n)
		if i+n == len(b) {
			mark |= 1 << 31
		}
		p.client.out.Uint32(mark)
		copy(p.client.out.Extend(n), b[i:i+n])
		i += n
	}
	if _, failed := p.exchange(); failed != "" {
		return failed
	}
	return ok
}

// survives tells whether a handle from the server at before works at after.
func survives(t *testing.T, before, after string) string {
	old := newProber(t, before)
	h, _ := old.lookup(0, old.root, "etc")
	_, status := newProber(t, after).nfs(0, gonfs.NFSProcedureGetAttr, func(e *wire.Encoder) { e.Opaque(h) })
	return status
}
