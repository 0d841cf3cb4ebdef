package peer

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/pin/tftp/v3"
)

// PinTFTPCommand is how a program is asked for what ServePinTFTP does: it must take
// these words, an address, and a path.
var PinTFTPCommand = []string{"bench", "serve-pin-tftp"}

// ServePinTFTP serves the files of a directory over TFTP by pin/tftp, in the way of the
// example that comes with it, until the process ends.
func ServePinTFTP(addr, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	return tftp.NewServer(func(name string, to io.ReaderFrom) error {
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = to.ReadFrom(f)
		return err
	}, nil).Serve(conn)
}

// PinTFTP serves the boot files of a tree by pin/tftp in a process of its own: the
// program at a path, which takes PinTFTPCommand.
func PinTFTP(ctx context.Context, program, tree string) (*Server, error) {
	s, dir, err := newTFTP("pin/tftp", "github.com/pin/tftp/v3 "+moduleVersion("github.com/pin/tftp/v3")+", reading files as in its example, else its defaults")
	if err != nil {
		return nil, err
	}
	args := append(append([]string{}, PinTFTPCommand...), s.TFTPAddr.String(), filepath.Join(tree, BootDir))
	return s, s.start(ctx, dir, program, args...)
}
