// Package image is the store: it seals trees into immutable versions and opens
// them for reading.
package image
