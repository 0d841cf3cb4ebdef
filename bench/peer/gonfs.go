package peer

import (
	"context"
	"net"
	"os"
	"runtime/debug"

	gonfs "github.com/willscott/go-nfs"
	"github.com/willscott/go-nfs/helpers"
)

// GoNFSCommand and LimitCommand are how a program is asked for what ServeGoNFS
// and ServeLimit do: it must take these words, an address, and a path.
var (
	GoNFSCommand = []string{"bench", "serve-gonfs"}
	LimitCommand = []string{"bench", "serve-limit"}
)

// gonfsHandles is how many handles go-nfs remembers. What it forgets is stale, so
// they must be more than the tree has objects; but it goes through all that it
// knows for every call, so they should not be too many.
const gonfsHandles = 1 << 20

// ServeGoNFS serves a directory by go-nfs, with the handlers of its example osnfs,
// until the process ends.
func ServeGoNFS(addr, tree string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	handler := helpers.NewNullAuthHandler(hostFiles{tree})
	return gonfs.Serve(ln, helpers.NewCachingHandler(handler, gonfsHandles))
}

// GoNFS serves a directory by go-nfs in a process of its own: the program at a
// path, which takes GoNFSCommand.
func GoNFS(ctx context.Context, program, tree string) (*Server, error) {
	s := &Server{
		Name: "go-nfs",
		About: "github.com/willscott/go-nfs " + moduleVersion("github.com/willscott/go-nfs") +
			", null authentication and the caching handler as in its example, for 2^20 handles",
		MountPath: "/",
	}
	return s, s.startSelf(ctx, program, GoNFSCommand, tree)
}

// startSelf runs a hidden command of the program.
func (s *Server) startSelf(ctx context.Context, program string, command []string, path string) error {
	addr, err := FreeAddr()
	if err != nil {
		return err
	}
	s.Addr, s.MountAddr = addr, addr
	dir, err := os.MkdirTemp("", "rootnfsd-bench")
	if err != nil {
		return err
	}
	return s.start(ctx, dir, program, append(append([]string{}, command...), addr, path)...)
}

func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version
		}
	}
	return ""
}
