package store

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"

	"github.com/rootnfsd/rootnfsd/bench/rpc"
)

// readReply returns the reply to a READ of a server that answers whatever it is asked
// with some content.
func readReply(t *testing.T, content string) *rpc.Reply {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		const xid, reply, eof = 1, 1, 1
		size := uint32(len(content))
		var body []byte
		for _, w := range []uint32{xid, reply, 0, 0, 0, 0, 0, 0, size, eof, size} {
			body = binary.BigEndian.AppendUint32(body, w)
		}
		body = append(body, content...)
		c.Write(append(binary.BigEndian.AppendUint32(nil, 1<<31|uint32(len(body))), body...))
		c.Read(make([]byte, 1000)) // the call: what is not read when it is closed resets the connection
	}()
	c, err := rpc.Dial(ln.Addr().String(), rpc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	r, err := c.Do(1, c.AppendRead(nil, 1, []byte("handle"), 0, readSize))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCheckFile(t *testing.T) {
	for _, c := range []struct {
		file file
		want string // in the error
	}{
		{file{length: 8}, ""},
		{file{length: 12}, "a READ of 8 bytes, where the file has 12"},
		{file{length: 8, content: []byte("contents")}, ""},
		{file{length: 8, content: []byte("CONTENTS")}, "other bytes"},
	} {
		err := c.file.check(readReply(t, "contents"))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d bytes %q: %v; want %q", c.file.length, c.file.content, err, c.want)
		}
	}
}
