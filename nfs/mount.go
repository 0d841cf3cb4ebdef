package nfs

import (
	gonfs "github.com/willscott/go-nfs"
	"go.uber.org/zap"

	"github.com/rootnfsd/rootnfsd/exports"
	"github.com/rootnfsd/rootnfsd/nfs/wire"
)

const mountVersion = 3

// mountProcedures answers MOUNT version 3 (RFC 1813, section 5.2).
var mountProcedures = [...]procedure{
	gonfs.MountProcNull:    null,
	gonfs.MountProcMount:   (*call).mnt,
	gonfs.MountProcDump:    (*call).dumpMounts,
	gonfs.MountProcUmnt:    (*call).umnt,
	gonfs.MountProcUmntAll: (*call).umntAll,
	gonfs.MountProcExport:  (*call).exportList,
}

// mountProcedure finds what answers a call of MOUNT. Of version 1 there is all
// but MNT, whose handles of 32 bytes are not ours: an old showmount asks in it.
func (c *call) mountProcedure() (procedure, wire.AcceptStat) {
	h := &c.header
	if h.Vers == mountVersion || h.Vers == 1 && h.Proc != uint32(gonfs.MountProcMount) {
		c.inHome = h.Proc == uint32(gonfs.MountProcMount) && !c.datagram && c.mountsHome()
		return pick(mountProcedures[:], h.Proc)
	}
	return c.mismatch(mountVersion, mountVersion)
}

// maxMountPath is how much of a path is decoded: more than a path may have, so
// that one that is too long is told so.
const maxMountPath = 8 << 10

// mountsHome reports whether a MNT is one of a home, which may have to be copied.
func (c *call) mountsHome() bool {
	args := c.args // a copy: the procedure decodes it again
	return c.srv.exports.MountsHome(string(args.Opaque(maxMountPath)))
}

// mnt is MNT (RFC 1813, section 5.2.1). It takes any credentials: klibc's
// nfsmount, which mounts the root of many a node, has none.
func (c *call) mnt() wire.AcceptStat {
	path := c.args.Opaque(maxMountPath)
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	handle, err := c.srv.exports.Mount(c.peer, string(path), exports.Caller{
		Booting:  c.header.Cred.Flavor == wire.AuthNone,
		Datagram: c.datagram,
	})
	status := mountStatus(err)
	c.srv.stats.countMount(status)
	c.out.Uint32(uint32(status))
	if err != nil {
		c.srv.log.Warn("mount refused", zap.Stringer("client", c.remote.Addr()), zap.Error(err))
		return wire.Success
	}
	c.srv.log.Info("mounted", zap.Stringer("client", c.remote.Addr()), zap.String("path", string(path)))
	c.out.Opaque(handle)
	flavors := [...]uint32{wire.AuthSys, wire.AuthNone}
	c.out.Uint32(uint32(len(flavors)))
	for _, f := range flavors {
		c.out.Uint32(f)
	}
	return wire.Success
}

// umnt is UMNT (RFC 1813, section 5.2.3).
func (c *call) umnt() wire.AcceptStat {
	path := c.args.Opaque(maxMountPath)
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	c.srv.exports.Unmount(c.peer, string(path))
	return wire.Success
}

// umntAll is UMNTALL (RFC 1813, section 5.2.4).
func (c *call) umntAll() wire.AcceptStat {
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	c.srv.exports.UnmountAll(c.peer)
	return wire.Success
}

// dumpMounts is DUMP (RFC 1813, section 5.2.2).
func (c *call) dumpMounts() wire.AcceptStat {
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	return c.putList(func(put func(item func())) {
		for _, m := range c.srv.exports.Mounts() {
			put(func() {
				c.out.String(m.Host)
				c.out.String(m.Path)
			})
		}
	})
}

// exportList is EXPORT (RFC 1813, section 5.2.5).
func (c *call) exportList() wire.AcceptStat {
	if !c.args.Done() {
		return wire.GarbageArgs
	}
	return c.putList(func(put func(item func())) {
		for _, e := range c.srv.exports.List() {
			put(func() {
				c.out.String(e.Path)
				for _, client := range e.Clients {
					c.out.Bool(true)
					c.out.String(client)
				}
				c.out.Bool(false)
			})
		}
	})
}

// maxDatagramList bounds a list that is sent in a datagram, so that it passes
// in one packet.
const maxDatagramList = 1 << 10

// putList appends an XDR list of the items that each puts: as many as a reply
// may hold. The limits are far from what a real server lists.
func (c *call) putList(each func(put func(item func()))) wire.AcceptStat {
	limit := maxListing
	if c.datagram {
		limit = maxDatagramList
	}
	limit += c.out.Len()
	full := false
	each(func(item func()) {
		if full {
			return
		}
		pos := c.out.Len()
		c.out.Bool(true)
		item()
		if c.out.Overflow() || c.out.Len() > limit {
			c.out.Truncate(pos)
			full = true
		}
	})
	c.out.Bool(false)
	return wire.Success
}
