"""Certificate authorities, workload identities, rotation and tokens of the mesh.

    Mesh + Secrets --authority--> Authority --x509--> Identity, TrustBundle --service--> Latest[Credentials]
    Mesh ---------keeper--------> Secrets (CA of each mesh, signing keys) --signing--> Keys --tokens--> tokens

====================== ==========================================================================================
``identity``           the values others hold: ``Identity``, ``TrustBundle``, ``Credentials``; the URIs of a proxy
``x509``               build, sign and parse certificates
``authority``          which CA a Mesh uses now (builtin or provided), what is wrong with it
``rotation``           when an identity is renewed, which roots overlap, backoff and circuit breaker
``tokens``             JWTs of zones, dataplanes and users: what they say, how they are made, why they are refused
``rsa_pem``            RSA keys of tokens as PEM (PKCS#1), private to public
``signing``            which Secret holds which key and which revocations
``access``             issue and check tokens against a store
``internal``           what Envoys that this process starts show instead of a token
``private_files``      files that only this user may read
``server_certificate`` the CA and certificate of the server that proxies connect to; ``server_files`` keeps them
``envoy_admin``        the CA, servers and client of the way to the admin API of Envoys
``vault``              the issued identities and trusted roots on disk (0600), reused over restarts
``keeper``             ``CaKeeper``: makes the keys and CAs that are missing
``offload``            how the services run what blocks
``service``            ``IdentityService``: keeps every proxy's credentials fresh
====================== ==========================================================================================
"""
