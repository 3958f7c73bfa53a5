// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface IToken {
    function transferFrom(address from, address to, uint256 value) external returns (bool);
}

/// Sends tokens of the caller to many, all or none: the interface of the multisend contracts that are in use.
contract Multisend {
    function disperseTokenSimple(IToken token, address[] memory recipients, uint256[] memory values) external {
        require(recipients.length == values.length, "lengths");
        for (uint256 i = 0; i < recipients.length; i++)
            require(token.transferFrom(msg.sender, recipients[i], values[i]), "refused");
    }
}
