package homes

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

const mebi = 1 << 20

// content is what files are filled with: random bytes, so that nothing on the way can
// make them smaller, and other ones in each place.
var content = func() []byte {
	b := make([]byte, 2*mebi)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

// contentAt is the content of n bytes of the file of a line, which do not cross a
// boundary of a MiB. Content of other generations is other content.
func contentAt(line, generation int, off uint64, n int) []byte {
	piece := off / mebi
	start := (piece*7919 + uint64(line)*104729 + uint64(generation)*15485863) * 61 % mebi
	start += off % mebi
	return content[start : start+uint64(n)]
}

// checkFile compares a file of the server with what it must hold: pieces of a size,
// each of the generation that is asked for.
func checkFile(path string, line, size, piece int, generation func(i int) int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != int64(size) {
		return fmt.Errorf("%s: it has %d bytes, and must have %d (%v)", path, info.Size(), size, err)
	}
	b := make([]byte, piece)
	for i := range size / piece {
		if _, err := io.ReadFull(f, b); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if !bytes.Equal(b, contentAt(line, generation(i), uint64(i*piece), piece)) {
			return fmt.Errorf("%s: bytes %d to %d are not what was written", path, i*piece, (i+1)*piece)
		}
	}
	return nil
}
