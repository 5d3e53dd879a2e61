"""TLS between ingress replicas and shards, for a network that is not trusted.

Both sides present a certificate of one authority, which is the cluster's own and signs for nothing
else: any certificate of it is accepted, whatever its name. Addresses come from Ray and change with
every start, so certificates need not contain them. The port's secret is required as well.
"""

import ssl

import msgspec


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of PEM files; see the settings of these names. All are set, or none."""

    shard_tls_certificate: str
    shard_tls_key: str
    shard_tls_authority: str

    def context(self, purpose: ssl.Purpose) -> ssl.SSLContext | None:
        """For connections of one side; None without TLS.

        Raises:
            OSError: a file is missing or invalid.
        """
        if not self.shard_tls_certificate:
            return None
        context = ssl.create_default_context(purpose, cafile=self.shard_tls_authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_3  # both sides are ours
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.shard_tls_certificate, self.shard_tls_key)
        return context
