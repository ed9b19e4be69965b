"""How the values of every chart describe Kafka and PostgreSQL."""

from schema_words import PORTED, Schema, choice, closed, flag, key, secret, text, whole


def kafka() -> Schema:
    """How the Kafka cluster is reached."""
    return closed(
        "The Kafka cluster; no key here has a value unless it is given one, so that the chart's own wins over global's",
        bootstrapServers=text(
            "Brokers to begin with: host:port, separated by commas (kafka:9092 where not set)",
            rf"^{PORTED}(, ?{PORTED})*$",
        ),
        securityProtocol=choice(
            "How connections are protected", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"
        ),
        sasl=closed(
            "Who the services are to Kafka",
            mechanism=choice("How they prove it", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
            username=text("User"),
            existingSecret=secret("the password"),
            passwordKey=key("the password"),
        ),
        tls=closed(
            "Certificates",
            existingSecret=secret("the certificates of those who sign the brokers' certificates"),
            caKey=key("those certificates"),
            clientSecret=secret(
                "the client's certificate and key; tls.existingSecret where not set"
            ),
            certKey=key("the client's certificate"),
            keyKey=key("the client's private key"),
            keyPasswordKey=key("the private key's password"),
        ),
        topics=closed(
            "The topics, which the aggregator's migration makes or checks",
            manage=flag("Whether the migration makes them; else it only checks"),
            partitions=whole(
                "Partitions of each topic: the most consumers that share the work", 1, 1000
            ),
            replicationFactor=whole("Copies of each partition", 1, 10),
            minInsyncReplicas=whole("Copies that must have a record before it counts", 1, 10),
            tradesRetentionHours=whole("Hours that trades are kept in the log", 1),
            candlesRetentionHours=whole("Hours that candles are kept in the log", 1),
            statusRetentionHours=whole("Hours that states and gaps are kept in the log", 1),
            deadLettersRetentionHours=whole("Hours that refused records are kept in the log", 1),
        ),
    )


def kafka_login() -> Schema:
    """Who somebody else than the service is to Kafka."""
    return closed(
        "Another user of Kafka than the service's",
        sasl=closed(
            "The user, where kafka.securityProtocol has SASL",
            username=text("User"),
            existingSecret=secret("the password"),
            passwordKey=key("the password"),
        ),
        tls=closed(
            "The user, where brokers ask for a certificate",
            clientSecret=secret("the client's certificate and key, under the same keys"),
        ),
    )


def login() -> dict[str, Schema]:
    """Who somebody is to PostgreSQL."""
    return {
        "username": text("User", r"^[A-Za-z0-9_.@-]+$"),
        "existingSecret": secret("the password"),
        "passwordKey": key("the password"),
        "urlSecret": secret("the whole address, password and all, in place of every other key"),
        "urlKey": key("the address"),
    }


def postgres() -> Schema:
    """How the database is reached."""
    return closed(
        "The PostgreSQL database; no key here has a value unless it is given one, so that the chart's own wins over global's",
        host=text("Its name or address (postgres where not set)", r"^[A-Za-z0-9_.:-]+$"),
        port=whole("Its port (5432 where not set)", 1, 65535),
        database=text("The database (vegamite where not set)", r"^[A-Za-z0-9_.-]+$"),
        sslMode=choice(
            "Whether the connection is encrypted, and how the server's certificate is checked",
            "disable", "allow", "prefer", "require", "verify-ca", "verify-full",
        ),
        tls=closed(
            "Certificates",
            existingSecret=secret("the certificates of those who sign the server's certificate"),
            caKey=key("those certificates"),
        ),
        **login(),
    )  # fmt: skip
