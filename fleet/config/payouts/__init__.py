"""What bots earn and how it is paid: [payouts], [networks.NAME] and [payees.NAME] (docs/payouts.md)."""
