// Package wire is the encoding that ONC RPC programs share: XDR (RFC 4506), the
// headers of RPC calls and replies with AUTH_NONE and AUTH_SYS (RFC 5531), and
// record marking on streams (RFC 5531, section 11).
//
// It owns bytes. It knows no program but RPC itself: what NFS, MOUNT or the
// portmapper put behind the headers is their business. Nothing here allocates:
// a Decoder aliases the bytes it reads, an Encoder fills a buffer it is given.
package wire
