package image

import "sync/atomic"

// checks counts, for the whole process, what is compared with its digest when it is read.
var checks struct{ bytes, damaged atomic.Uint64 }

// Checks returns how many bytes of content this process has compared with their digests since it
// began, and how many chunks did not have theirs: those are damaged on the disk or in memory.
func Checks() (bytes, damaged uint64) { return checks.bytes.Load(), checks.damaged.Load() }
