package lint

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// windowSize is how much of a kernel is looked at at a time: more than any header
// has in front of what it leads to.
const windowSize = 128 << 10

// kernelRelease reads out of a kernel image which release it is, as uname -r
// would say it. It knows what an x86 bzImage says in its header, and finds the
// banner in an Image of arm64, compressed or not, in a zImage of 32-bit ARM and
// in an image with EFI's own decompressor.
func kernelRelease(r io.Reader) (string, error) {
	b := bufio.NewReaderSize(io.LimitReader(r, maxUnpacked), windowSize)
	head, err := b.Peek(windowSize)
	if err != nil && err != io.EOF {
		return "", err
	}
	at := func(offset int, magic string) bool {
		return len(head) >= offset+len(magic) && string(head[offset:offset+len(magic)]) == magic
	}
	skip := 0
	switch {
	case at(0x202, "HdrS"): // Documentation/arch/x86/boot.rst
		return bzImageRelease(head)
	case at(0, "MZ") && at(4, "zimg") && len(head) >= 64: // drivers/firmware/efi/libstub/zboot-header.S
		skip = int(min(binary.LittleEndian.Uint32(head[8:]), windowSize))
	case at(0x24, "\x18\x28\x6f\x01"): // arch/arm/boot/compressed/head.S
		skip = payload(head)
	}
	if _, err := b.Discard(skip); err != nil {
		return "", eofUnexpected(err)
	}
	if begin, _ := b.Peek(6); compressionOf(begin) == nil {
		return scanBanner(b)
	}
	z, err := decompress(b)
	if err != nil {
		return "", err
	}
	defer z.Close()
	return scanBanner(io.LimitReader(z, maxUnpacked))
}

// bzImageRelease follows the header of an x86 image to its version.
func bzImageRelease(head []byte) (string, error) {
	const pointer, setup = 0x20e, 0x200
	if len(head) < pointer+2 {
		return "", io.ErrUnexpectedEOF
	}
	offset := int(binary.LittleEndian.Uint16(head[pointer:])) + setup
	if offset >= len(head) {
		return "", io.ErrUnexpectedEOF
	}
	return release(head[offset:])
}

// payload finds where the compressed kernel begins behind its decompressor.
func payload(head []byte) int {
	first := len(head)
	for _, c := range compressions() {
		if len(c.magic) < 4 { // others are found in code by chance
			continue
		}
		if i := bytes.Index(head[:first], []byte(c.magic)); i >= 0 {
			first = i
		}
	}
	if i := bytes.Index(head[:first], []byte("\x1f\x8b\x08\x00")); i >= 0 {
		first = i
	}
	return first
}

// scanBanner looks for "Linux version 6.1.0 (…".
func scanBanner(r io.Reader) (string, error) {
	const banner = "Linux version "
	b := bufio.NewReaderSize(r, windowSize)
	for {
		window, err := b.Peek(b.Size())
		for rest := window; ; {
			i := bytes.Index(rest, []byte(banner))
			if i < 0 {
				break
			}
			if rest = rest[i+len(banner):]; len(rest) >= maxRelease || err != nil {
				if found, err := release(rest); err == nil {
					return found, nil
				}
			}
		}
		if err == io.EOF {
			return "", fmt.Errorf("this does not say which kernel it is: %w", errFormat)
		}
		if err != nil {
			return "", err
		}
		// What may be cut off at the end is looked at again.
		if _, err := b.Discard(len(window) - maxRelease - len(banner)); err != nil {
			return "", err
		}
	}
}

// maxRelease is one more than the longest release: the kernel has 65 bytes for one
// (__NEW_UTS_LEN).
const maxRelease = 66

// release returns the release that text begins with, up to a blank.
func release(text []byte) (string, error) {
	text = text[:min(len(text), maxRelease)]
	if end := bytes.IndexAny(text, " \x00\n"); end >= 0 {
		text = text[:end]
	}
	if len(text) == 0 || len(text) == maxRelease || text[0] < '0' || text[0] > '9' {
		return "", fmt.Errorf("this is no kernel release: %w", errFormat)
	}
	for _, b := range text {
		if b <= ' ' || b > '~' || b == '/' {
			return "", fmt.Errorf("this is no kernel release: %w", errFormat)
		}
	}
	return string(text), nil
}
