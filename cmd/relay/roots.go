package main

// Roots of certificates for where the machine has none, as in our image. Where it has
// some, those alone count.
import _ "golang.org/x/crypto/x509roots/fallback"
