package fs

import (
	"encoding/hex"
	"fmt"
)

// Digest identifies the content of a version: SHA-256 over all that a client
// can see of it. The same tree has the same Digest on every machine.
type Digest [32]byte

// String returns the digest as 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 12 hexadecimal digits, for people to read.
func (d Digest) Short() string { return hex.EncodeToString(d[:6]) }

// MarshalText writes the digest as String does, for JSON.
func (d Digest) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, d[:]), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(text []byte) error {
	if hex.DecodedLen(len(text)) != len(d) {
		return fmt.Errorf("digest %.80q: want %d hexadecimal digits", text, hex.EncodedLen(len(d)))
	}
	_, err := hex.Decode(d[:], text)
	return err
}
