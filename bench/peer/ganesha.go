package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const ganeshaProgram = "ganesha.nfsd"

// GaneshaConfig is what ganesha must be told: where the tree is, and to keep to an
// address and ports of its own. It needs a port mapper (StartRpcbind); D-Bus it does
// without. All else is as it comes, but for the number of connections: its default of
// 1024 is one too few for 1024 of the bench and one that mounts. A tree whose name
// cannot be written in it is an error.
func GaneshaConfig(addr, port, mountPort, tree string) ([]byte, error) {
	return ganeshaConfig(addr, port, mountPort, tree, "RO")
}

func ganeshaConfig(addr, port, mountPort, tree, access string) ([]byte, error) {
	if strings.ContainsAny(tree, "\"\\\n") {
		return nil, fmt.Errorf("%q cannot be written in the configuration of nfs-ganesha", tree)
	}
	return fmt.Appendf(nil, ganeshaText, addr, port, mountPort, tree, access), nil
}

// GaneshaAbout says how nfs-ganesha is configured by GaneshaConfig.
const GaneshaAbout = "VFS, read-only, " + ganeshaDefaults

const (
	ganeshaWritable = "VFS, read and write, " + ganeshaDefaults
	ganeshaDefaults = "NFSv3 over TCP only, no root squash, 10000 connections, else its defaults"
)

const ganeshaText = `NFS_CORE_PARAM {
	Protocols = 3;
	Bind_addr = %s;
	NFS_Port = %s;
	MNT_Port = %s;
	Enable_UDP = false;
	Enable_NLM = false;
	Enable_RQUOTA = false;
	RPC_Max_Connections = 10000;
}
EXPORT {
	Export_Id = 1;
	Path = "%s";
	Pseudo = "/tree";
	Access_Type = %s;
	Squash = No_Root_Squash;
	FSAL { Name = VFS; }
}
`

// MissingGanesha returns what to do if nfs-ganesha cannot be run here, or nil.
func MissingGanesha() error {
	if _, err := exec.LookPath(ganeshaProgram); err != nil {
		return errors.New("nfs-ganesha is not installed (apt-get install nfs-ganesha nfs-ganesha-vfs)")
	}
	plugins, _ := filepath.Glob("/usr/lib/*/ganesha/libfsalvfs.so")
	more, _ := filepath.Glob("/usr/lib*/ganesha/libfsalvfs.so")
	if len(plugins)+len(more) == 0 {
		return errors.New("nfs-ganesha has no VFS module (apt-get install nfs-ganesha-vfs)")
	}
	if os.Geteuid() != 0 {
		return errors.New("nfs-ganesha opens files by handle, which needs root")
	}
	return nil
}

// Ganesha serves a directory by nfs-ganesha for reading, unless MissingGanesha.
func Ganesha(ctx context.Context, tree string) (*Server, error) {
	return ganesha(ctx, tree, "RO", GaneshaAbout)
}

// GaneshaWritable serves a directory by nfs-ganesha for reading and writing, unless
// MissingGanesha.
func GaneshaWritable(ctx context.Context, tree string) (*Server, error) {
	return ganesha(ctx, tree, "RW", ganeshaWritable)
}

func ganesha(ctx context.Context, tree, access, configured string) (*Server, error) {
	if err := MissingGanesha(); err != nil {
		return nil, err
	}
	addr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	mountAddr, err := FreeAddr()
	if err != nil {
		return nil, err
	}
	host, port, _ := net.SplitHostPort(addr)
	_, mountPort, _ := net.SplitHostPort(mountAddr)
	text, err := ganeshaConfig(host, port, mountPort, tree, access)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "rootnfsd-bench")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "ganesha.conf")
	if err := os.WriteFile(config, text, 0o644); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s := &Server{
		Name: "nfs-ganesha",
		About: strings.TrimSpace(strings.TrimPrefix(about(ganeshaProgram, "-v"), "NFS-Ganesha Release =")) +
			", " + configured,
		Addr: addr, MountAddr: mountAddr, MountPath: tree,
	}
	s.About = "nfs-ganesha " + s.About
	if s.mapper, err = StartRpcbind(ctx); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	// In the foreground, and with its log where start looks for it.
	args := s.mapper.Within(ganeshaProgram, "-F", "-f", config, "-L", "STDERR", "-p", filepath.Join(dir, "pid"))
	if err := s.start(ctx, dir, args[0], args[1:]...); err != nil {
		s.mapper.Stop()
		return nil, err
	}
	return s, nil
}
