// Package tarball reads tar archives into a source.Sink and writes them of a
// source. It knows neither compression nor where the tree goes.
package tarball
