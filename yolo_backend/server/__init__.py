"""Label Studio's ML protocol over HTTP: routes, login, limits, the status page, `fit` behind the webhook, the start."""
