"""What all routes share: who calls, writes that happen once, long polls, uploads, errors as problem+json."""
