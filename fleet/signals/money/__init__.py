"""Money as pages and metrics show it: the bill. What pools spend and limits allow: `signals/cost_view.py`."""
